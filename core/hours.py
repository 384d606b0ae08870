"""A daily window such as 22:00-06:00, in whatever zone its owner lives. Reads no clock."""

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta


@dataclass(frozen=True, slots=True)
class Hours:
    """From `begins` to `ends`. A window that ends before it begins runs over midnight; both ends equal: always."""

    begins: time
    ends: time

    @classmethod
    def of(cls, text: str) -> "Hours":
        """The window as people write it. Raises ValueError for anything else."""
        found = re.fullmatch(r"(\d{1,2}:\d{2})\s*-\s*(\d{1,2}:\d{2})", text.strip())
        try:
            if found is None:
                raise ValueError
            return cls(*(time.fromisoformat(each.zfill(5)) for each in found.groups()))
        except ValueError:
            raise ValueError(f"{text} is no daily window such as 22:00-06:00") from None

    def open_at(self, local: time) -> bool:
        """Whether the window is open at a local time of day."""
        if self.begins < self.ends:
            return self.begins <= local < self.ends
        return local >= self.begins or local < self.ends

    def opened(self, local: datetime) -> datetime:
        """When the window that is open at `local`, or was the last to be, began."""
        today = datetime.combine(local.date(), self.begins, local.tzinfo)
        return today if today <= local else today - timedelta(days=1)

    def closes(self, local: datetime) -> datetime:
        """When the window that is open at `local` ends."""
        today = datetime.combine(local.date(), self.ends, local.tzinfo)
        return today if today > local else today + timedelta(days=1)
