// One case: a draft arrives by itself, and what a person has written is never touched without their word.
"use strict";
const page = document.getElementById("case");
const id = page.dataset.id;
const box = () => document.getElementById("impression");
const form = () => document.getElementById("sign");
const seen = () => Number(form()?.elements.draft_version.value || 0);

// The text counts as the person's own once it differs from what the page put there, or when the page says that it is theirs.
const written = () => { const b = box(); return !!b && ("own" in b.dataset || b.value !== b.defaultValue); };

let leaving = false;      // signed: the page may go without asking
let stale = false;        // the session's token may be old
let kept = null;          // the text that "replace" took away, for "bring back"

function say(text) {
  const line = document.createElement("p");
  line.className = "message bad";
  line.setAttribute("role", "alert");
  line.textContent = text;
  document.getElementById("notice").replaceChildren(line);
  line.scrollIntoView({ block: "nearest" });
}

// Puts a new state of the case on the page; with `keep`, the text in the box stays as it is.
function show(html, keep) {
  const old = box();
  const focused = old !== null && old === document.activeElement;
  const mine = keep && old ? { text: old.value, start: old.selectionStart, end: old.selectionEnd } : null;
  page.innerHTML = html;
  const now = box();
  if (mine && now) {
    now.value = mine.text;
    now.dataset.own = "";
    document.getElementById("from-draft")?.remove();
    now.setSelectionRange(mine.start, mine.end);
  }
  if (focused) now?.focus({ preventScroll: true });
  dress();
}

async function part() {
  const answer = await fetch(`/cases/${id}`, { headers: { "X-Part": "1" } });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.text();
}

// What the server tells of the case without its draft; state and waiting time are put in their places at once.
async function notice() {
  const answer = await fetch(`/cases/${id}/notice?seen=${seen()}`, { headers: { "X-Part": "1" } });
  if (!answer.ok) throw new Error(String(answer.status));
  const held = document.createElement("template");
  held.innerHTML = await answer.text();
  document.getElementById("state").replaceWith(held.content.getElementById("state"));
  const waited = held.content.getElementById("waited");
  waited?.remove();
  if (waited) document.getElementById("waited")?.replaceWith(waited);
  return held.content;
}

async function changed() {
  try {
    if (!written()) { show(await part(), false); return; }
    document.getElementById("notice").replaceChildren(await notice());
  } catch { /* the stream's return asks again */ }
}

// Everything below is bound anew after each change of the page.
function dress() {
  const restore = document.getElementById("restore");
  const undo = document.getElementById("undo");
  const offer = () => { if (restore && box()) restore.hidden = box().value === restore.dataset.text; };
  box()?.addEventListener("input", offer);
  offer();
  restore?.addEventListener("click", () => {
    kept = box().value;
    box().value = restore.dataset.text;
    offer();
    undo.hidden = false;
    box().focus();
  });
  undo?.addEventListener("click", () => {
    box().value = kept;
    undo.hidden = true;
    offer();
    box().focus();
  });
  form()?.addEventListener("submit", submit);
  for (const issue of page.querySelectorAll("[data-issue]")) {
    const marks = [...page.querySelectorAll("mark")].filter((mark) => mark.dataset.issues.split(" ").includes(issue.dataset.issue));
    const light = (on) => () => {
      for (const mark of marks) mark.classList.toggle("lit", on);
      if (on && issue.matches(":focus-within")) marks[0]?.scrollIntoView({ block: "nearest" });
    };
    for (const name of ["mouseenter", "focusin"]) issue.addEventListener(name, light(true));
    for (const name of ["mouseleave", "focusout"]) issue.addEventListener(name, light(false));
  }
  const links = [...page.querySelectorAll("[data-keys]")];
  const keys = (one) => one.dataset.keys.split(" ").filter((key) => key !== "?");
  const findings = document.getElementById("findings");
  for (const one of links) {
    const others = links.filter((other) => other !== one && keys(other).some((key) => keys(one).includes(key)));
    const light = (on) => () => {
      for (const each of [one, ...others]) each.classList.toggle("lit", on);
      if (on && one === document.activeElement) others.find((other) => findings.contains(other))?.scrollIntoView({ block: "nearest" });
    };
    for (const name of ["mouseenter", "focusin"]) one.addEventListener(name, light(true));
    for (const name of ["mouseleave", "focusout"]) one.addEventListener(name, light(false));
  }
  const draft = document.getElementById("draft");
  draft?.addEventListener("copy", () => report("copied", Number(draft.dataset.version)), { once: true });
}

function report(kind, version) {
  fetch(`/v1/requests/${id}/events`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": form()?.elements.csrf.value ?? "" },
    body: JSON.stringify({ kind, draft_version: version }),
    keepalive: true,
  }).catch(() => {});
}

async function submit(event) {
  event.preventDefault();
  const button = event.submitter;
  const again = button !== null && "regenerate" in button.dataset;
  const buttons = page.querySelectorAll("button");
  const body = new URLSearchParams(new FormData(form()));
  for (const one of buttons) one.disabled = true;
  try {
    const answer = await fetch(again ? button.formAction : form().action, { method: "POST", body, headers: { "X-Part": "1" } });
    if (answer.status === 204) {
      leaving = true;
      location.assign(answer.headers.get("X-Next"));
      return;
    }
    if (answer.headers.get("Content-Type")?.startsWith("text/html")) {
      const edited = again ? written() : true;
      show(await answer.text(), edited);
      if (again && !edited) box()?.removeAttribute("data-own");
      return;
    }
    stale = answer.status === 401 || answer.status === 403;
    if (stale) say(page.dataset.signedOut);
    else if (answer.status >= 500) say(page.dataset.away);
    else say(page.dataset.failed.replace("§", (await answer.json()).detail));
  } catch {
    say(page.dataset.away);
  } finally {
    if (!leaving) for (const one of buttons) one.disabled = false;
  }
}

// The button in a notice: the new draft beside the person's own text.
page.addEventListener("click", async (event) => {
  if (event.target.id !== "show-newer") return;
  try { show(await part(), true); } catch { say(page.dataset.away); }
});

// After signing in again in another tab, the page gets the new session's token and keeps its text.
window.addEventListener("focus", async () => {
  if (!stale) return;
  try { show(await part(), true); stale = false; } catch { /* not yet */ }
});

window.addEventListener("beforeunload", (event) => {
  if (!leaving && written() && box() && !box().readOnly) event.preventDefault();
});

// Back from another page: what stands here may be long past.
window.addEventListener("pageshow", (event) => { if (event.persisted) changed(); });

document.addEventListener("keydown", (event) => {
  if (event.key === "e" && !event.ctrlKey && !event.altKey && !event.metaKey && !event.target.matches("input:not([type=checkbox]), textarea")) {
    event.preventDefault();
    box()?.focus();
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === box()) {
    event.preventDefault();
    form().querySelector("button.main").focus(); // signing itself stays a deliberate key of its own
  }
});

// While a draft is waited for, the time that has passed and the time that is left.
setInterval(() => {
  if (document.getElementById("waited") && !document.hidden) notice().catch(() => { /* the next one */ });
}, 5000);

const source = new EventSource("/v1/worklist/stream");
let met = false;
source.addEventListener("ready", () => { page.dataset.live = "true"; if (met) changed(); met = true; });
source.onerror = () => { page.dataset.live = "false"; };
source.addEventListener("change", (event) => { if (JSON.parse(event.data).id === id) changed(); });
dress();
