"""An engine that works in turns: one thread takes jobs from a waiting list and lets the model do a piece of work, again and again.

What a piece of work is, and which of the waiting jobs take part in it, is the subclass's business.
"""

import threading
from abc import abstractmethod

import torch

from worker.engine.resident import Flight, Resident


class Turns(Resident):
    """A waiting list in the order of arrival, and the thread that works it off."""

    @abstractmethod
    def _turn(self) -> None:
        """One piece of work; waits while there is none and the engine is not stopping."""

    def _start_backend(self) -> None:
        self._waiting: list[Flight] = []
        self._work = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def _stop_backend(self) -> None:
        with self._work:
            self._stopping = True
            self._work.notify_all()
        self._thread.join()

    def _start(self, flight: Flight) -> None:
        with self._work:
            self._waiting.append(flight)
            self._work.notify_all()

    def _withdraw(self, flight: Flight) -> None:
        with self._work:
            if flight in self._waiting:
                self._waiting.remove(flight)

    def _run(self) -> None:
        try:
            if self._model.device.type == "cuda":
                torch.cuda.set_device(self._model.device)  # each thread begins with the first card as its own
            with torch.no_grad():
                while not self._stopping:
                    self._turn()
        except Exception as error:  # whatever it is, no job may hang
            self._stopped_by(error)
