"""Why a row lies in quarantine, in a sentence each: what stands there and what a person can do. The reasons themselves are `ingest.reasons.Reason`."""

from ingest.reasons import Reason

WHY: dict[str, str] = {
    Reason.UNDECODABLE: "Its bytes are no text in the charset that the file names: see charset, or [source.decode] for one column.",
    Reason.MOJIBAKE: "Its text is Chinese that was read in another charset: see charset, or [source.decode] for one column.",
    Reason.LOST: "More question marks than characters: the source could not hold Chinese and lost it.",
    Reason.UNSTORABLE: "A character that is none: NUL or half of a pair.",
    Reason.BAD_ROW: "The line has another number of cells than the header, is no object, or lost the digits of a number.",
    Reason.BAD_SHEET: "A sheet lacks columns: name them, or the sheet in skip_sheets.",
    Reason.NO_KEY: "The row has no key of its own (source_id).",
    Reason.BAD_TIME: "A time in a form that time_format does not name, or no time at all.",
    Reason.BAD_AGE: "An age that is neither a number nor one with a unit such as 岁, 月, 天, Y, years.",
    Reason.UNKNOWN_STATUS: "A status that [codes.status] does not name.",
    Reason.UNKNOWN_SEX: "A sex that [codes.sex] does not name.",
    Reason.UNKNOWN_MODALITY: "A modality that [codes.modality] does not name.",
    Reason.UNKNOWN_SYSTEM: "A body system that [codes.system] does not name.",
    Reason.UNKNOWN_PATIENT_CLASS: "A class of patient that [codes.patient_class] does not name.",
    Reason.UNKNOWN_GRADE: "A grade that [codes.grade] does not name.",
    Reason.NO_BORDER: "Findings and impression stand in one text without a heading between them.",
    Reason.EMPTY_FINDINGS: "A final report without findings.",
    Reason.EMPTY_IMPRESSION: "A final report without an impression.",
}
"""What stands beside a reason when people look."""
