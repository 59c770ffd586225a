"""One face through a shot: what was detected, and what lies between."""

import numpy as np

from avdetect.types import Float


class Track:
    """Detections of one face, interpolated linearly and averaged over 2 * `reach` + 1 frames. Near the ends of the
    track the average shrinks symmetrically, so that it never lags behind a moving face."""

    def __init__(self, track_id: int, reach: int) -> None:
        self.track_id, self.reach = track_id, reach
        self.ended = False
        self.first = self.last = self.next = -1  # frame numbers: first and last detection, the next face to hand out
        self._numbers: list[int] = []
        self._values: list[Float] = []  # (15,): box, landmarks, confidence

    @property
    def box(self) -> Float:
        """(4,) the last detected box."""
        return self._values[-1][:4]

    @property
    def length(self) -> int:
        """Frames from the first detection to the last."""
        return self.last - self.first + 1

    def add(self, number: int, box: Float, landmarks: Float, confidence: float) -> None:
        """A detection on frame `number`, later than all before."""
        if not self._numbers:
            self.first = self.next = number
        self.last = number
        self._numbers.append(number)
        self._values.append(np.concatenate([box, landmarks.ravel(), [confidence]]).astype(np.float32))
        # Forget what no average needs, but keep two detections for the velocity.
        while len(self._numbers) > 2 and self._numbers[1] < self.next - self.reach:
            del self._numbers[0], self._values[0]

    def predict(self, number: int) -> Float:
        """(4,) where the box should be on frame `number` if it moves on as between the last two detections."""
        if len(self._numbers) < 2:
            return self.box
        (before, last), (old, new) = self._numbers[-2:], self._values[-2:]
        shift = ((new[:2] + new[2:4]) - (old[:2] + old[2:4])) / 2 * ((number - last) / (last - before))
        return self.box + np.tile(shift, 2).astype(np.float32)

    def ready(self) -> range:
        """The frames whose face no later detection can change, taken off the queue."""
        first, self.next = self.next, max(self.next, self.last + 1 - (0 if self.ended else self.reach))
        return range(first, self.next)

    def at(self, number: int) -> tuple[Float, Float, float]:
        """Box (4,), landmarks (5, 2) and confidence on frame `number`."""
        reach = max(min(self.reach, number - self.first, self.last - number), 0)
        numbers, values = np.array(self._numbers), np.stack(self._values)
        times = np.arange(number - reach, number + reach + 1)
        mean = values[0]
        if len(numbers) > 1:
            after = np.clip(np.searchsorted(numbers, times), 1, len(numbers) - 1)
            span = numbers[after] - numbers[after - 1]
            weight = ((times - numbers[after - 1]) / span)[:, None]
            mean = ((1 - weight) * values[after - 1] + weight * values[after]).mean(axis=0).astype(np.float32)
        return mean[:4], mean[4:14].reshape(5, 2), float(mean[14])
