"""Requests of the page, apart from HTTP: content, and answers of both models as events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from unsee.api import Example, ImageSource
from unsee.errors import UserError, short_repr
from unsee.report.columns import MEANING
from unsee.report.printable import printable
from unsee.utils.parsing import text_fault
from unsee.workflows.serve.filing import Filing
from unsee.workflows.serve.judging import MISSING, judge
from unsee.workflows.serve.questions import Catalogue
from unsee.workflows.serve.sides import Side
from unsee.workflows.serve.turns import Turns
from unsee.workflows.serve.uploads import MOST_BYTES, decode_upload, thumbnail

WAITING: Final = 16
"""Most questions at a time, the one that is being answered included."""
LONGEST_NAME: Final = 200
"""Most characters in a name."""
_MISSING: Final = "cannot be judged"
_FAILED: Final = "The model failed at this question; the terminal where unsee serve runs shows the error."

Emit = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class App:
    """What the page can do."""

    title: str
    sides: Sequence[Side]
    """The models, in the order in which they answer: before, after."""
    catalogue: Catalogue
    filing: Filing | None = None
    """Where deletion requests go; None = the page takes none."""
    turns: Turns = field(default_factory=lambda: Turns(WAITING))

    def content(self) -> dict[str, Any]:
        """Return everything that the page shows before a question is asked."""
        return {
            "title": printable(self.title),
            "sides": [printable(side.label) for side in self.sides],
            "meaning": {**MEANING, MISSING: _MISSING},
            "bytes": MOST_BYTES,
            "filing": self.filing is not None,
            **self.catalogue.content(),
        }

    def picture(self, index: int) -> tuple[bytes, str]:
        """Return a picture of the gallery, made small, and its media type.

        Raises:
            UserError: There is none of this number, or it cannot be decoded.
        """
        return thumbnail(self.catalogue.picture(index).image)

    def ask(self, request: Mapping[str, Any], emit: Emit) -> None:
        """Answer a question with both models, and pass on what happens.

        `request`: question, and picture (number in the gallery), upload (base64) or entity. Events: `waiting` (how many are
        ahead), `side` with the `text` so far, `side` with the judged answer, `done`; or `error`. What `emit` raises ends it.
        """
        with _faults_told(emit):
            example = self._example(request)
            with self.turns.turn(lambda ahead: emit({"waiting": ahead})):
                for index, side in enumerate(self.sides):
                    self._answer(example, index, side, emit)

    def file(self, request: Mapping[str, Any], emit: Emit) -> None:
        """Receive a deletion request about a `name` and a picture, and emit the outcome.

        `request` and events as of `ask`, with the outcome as `filed`. It waits for its turn, since it asks the model of the project about the person.
        """
        with _faults_told(emit):
            if self.filing is None:
                raise UserError("This page takes no deletion requests.")
            name = _of(request, "name", str, "")
            if not name.strip() or len(name) > LONGEST_NAME:
                raise UserError(f"Expected a name of 1 to {LONGEST_NAME} characters, got {len(name)}.")
            image = self._image(request)
            with self.turns.turn(lambda ahead: emit({"waiting": ahead})):
                emit({"working": True})
                summary = self.filing.file(name.strip(), [] if image is None else [image])
            emit({"filed": [printable(line) for line in summary.splitlines()]})

    def _answer(self, example: Example, index: int, side: Side, emit: Emit) -> None:
        emit({"side": index, "text": ""})
        generated = side.say(example, lambda text: emit({"side": index, "text": printable(text)}))
        judged = judge(example, generated, self.catalogue.vocabulary)
        pieces = [[piece.text, int(piece.private)] for piece in judged.pieces]
        emit({**asdict(judged), "side": index, "pieces": pieces, "ended": generated.ended})

    def _image(self, request: Mapping[str, Any]) -> ImageSource | None:
        """Return the picture of a request: uploaded, or of the gallery."""
        if upload := _upload(request):
            return upload
        picture = _of(request, "picture", int, None)
        return None if picture is None else self.catalogue.picture(picture).image

    def _example(self, request: Mapping[str, Any]) -> Example:
        """Return the question that was asked, with everything known about it."""
        return self.catalogue.example(
            _of(request, "question", str, ""),
            picture=_of(request, "picture", int, None),
            upload=_upload(request),
            entity=_of(request, "entity", str, ""),
        )


@contextmanager
def _faults_told(emit: Emit) -> Iterator[None]:
    """Emit how the block ended: `done`, or `error` with a message.

    Exceptions other than UserError are raised as well.
    """
    try:
        yield
    except UserError as error:
        emit({"error": printable(str(error))})
    except (ConnectionError, TimeoutError):  # whoever asked is gone
        raise
    except Exception:
        emit({"error": _FAILED})
        raise
    else:
        emit({"done": True})


def _upload(request: Mapping[str, Any]) -> ImageSource | None:
    text = _of(request, "upload", str, "")
    return decode_upload(text) if text else None


def _of(request: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """Return a value of a request, or raise if it is of another type, or a text that cannot be tokenised."""
    value = request.get(name, default)
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
        raise UserError(f"{name} must be {kind.__name__}, got {short_repr(value, 40)}.")
    if isinstance(value, str) and (fault := text_fault(value)):
        raise UserError(f"{name} {fault}.")
    return value
