// The list keeps itself up to date: a change anywhere fetches it anew. Arrow keys walk through it. Nothing here knows what a state means.
"use strict";
const list = document.getElementById("list");
const live = document.getElementById("live");

let due = null;
function refreshSoon() {
  if (due === null) due = setTimeout(refresh, 250);
}
async function refresh() {
  due = null;
  try {
    const answer = await fetch(list.dataset.part, { headers: { "X-Part": "1" } });
    if (answer.status === 401) { location.reload(); return; }
    if (!answer.ok) return;
    const focused = document.activeElement?.dataset?.id;
    list.innerHTML = await answer.text();
    if (focused) list.querySelector(`a[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  } catch { /* the stream says that the connection is lost, and its return fetches again */ }
}

function say(online) {
  live.hidden = false;
  live.textContent = online ? live.dataset.live : live.dataset.offline;
  live.classList.toggle("offline", !online);
}
const source = new EventSource("/v1/worklist/stream");
let met = false;
source.addEventListener("ready", () => { say(true); if (met) refreshSoon(); met = true; });
source.addEventListener("change", refreshSoon);
source.onerror = () => {
  say(false);
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000); // refused: the session has ended
};
setInterval(refreshSoon, 60000); // the times that have passed
window.addEventListener("pageshow", (event) => { if (event.persisted) refreshSoon(); });

// Back from a signature: Enter opens the next case.
if (new URLSearchParams(location.search).has("signed")) list.querySelector(".exam a")?.focus({ preventScroll: true });

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const typing = event.target.matches("input, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    document.querySelector(".find input").focus();
    return;
  }
  const step = typing ? 0 : { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key] ?? 0;
  if (!step) return;
  const rows = [...list.querySelectorAll(".exam a")];
  if (!rows.length) return;
  event.preventDefault();
  const at = rows.indexOf(document.activeElement);
  rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + step))].focus();
});
