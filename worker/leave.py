"""What an institution lets a model do with one request: show a draft, make one that nobody sees, mark it, or make none. Pure; the desk acts on it."""

from dataclasses import dataclass

from clinical.case import ClinicalInput
from clinical.issues import Issue, Kind, Severity
from clinical.script import in_script
from core import stages
from core.institutions import Profile
from core.registry import Active
from core.stages import Stage
from core.states import Reason
from core.tables import DraftRequest


@dataclass(frozen=True, slots=True)
class Leave:
    """A draft may be made. `hidden`: it is scored and never shown; `marks` are shown beside it."""

    hidden: bool
    marks: tuple[Issue, ...] = ()


def permitted(row: DraftRequest, case: ClinicalInput, profile: Profile, version: Active) -> Leave | Reason:
    """The leave for this request, or the reason why no draft is made. What is urgent or critical is never of the hold-back arm."""
    stage = stages.stage(profile.stages, row.modality, row.systems)
    if stage is Stage.COLLECT:
        return Reason.NO_MODEL
    count = stages.seen(version.manifest["scope"], row.modality, row.systems, case.age_band, row.language)
    marks: tuple[Issue, ...] = ()
    if count is not None and count < profile.scope_minimum:
        if profile.out_of_scope == "withhold":
            return Reason.OUT_OF_SCOPE
        message = (
            in_script(f"模型只学过 {count} 例同类检查，请仔细核对整份草稿。", row.language)
            if row.language.startswith("zh")
            else f"The model was trained on {count} examinations like this; look at the whole draft with care."
        )
        marks = (Issue(Kind.UNSUPPORTED, Severity.AMBER, None, None, message, "scope"),)
    spared = row.is_stat or row.is_critical or not stages.is_held_back(row.accession, profile.hold_back)
    return Leave(stage is Stage.SHADOW or not spared, marks)
