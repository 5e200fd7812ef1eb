"""Conversion of other programs' rows: renamed columns, conversations, preferences."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote

from unsee.api.example import OF_TARGETS, Role
from unsee.errors import UserError, short_repr, unknown_name
from unsee.utils.parsing import as_text, decoded, is_empty

COLUMNS: Final = ("image", "question", "answer", "entity", "role", "private")
"""Required columns; cells of image, entity and private may be empty where not applicable."""
READ: Final = frozenset(
    {
        *(*COLUMNS, "images", "conversations", "messages", "visible", "id", "kind", "fact", "options", "chain"),
        *("accepted", "paraphrase", "perturbed", "split", "chosen", "rejected"),
    }
)
"""Known columns."""
KEPT_ANSWER: Final = "the answer if kept"
"""Key in the cells of a preference row: its chosen answer, which rows take that a rule says are to be kept."""
MARK: Final = "<image>"
"""Image placeholder in LLaVA data."""
OTHER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image_path", "image_file", "file_name", "filename", "img", "img_path", "picture", "photo", "path"),
    "question": ("prompt", "instruction", "query", "input"),
    "answer": ("response", "completion", "output", "target", "reply"),
    "entity": ("person", "subject", "identity", "class", "who", "entity_id"),
    "private": ("secrets", "sensitive", "pii"),
}
"""Column of unsee -> names that other programs give it [inferred]."""
_FOUND: Final = (*OTHER_NAMES, *sorted(READ - {*OTHER_NAMES, "chosen", "rejected"}))
"""Columns that are found in any case (`Split`), too."""
ROLES: Final = {role.value: role for role in Role} | {
    "delete": Role.FORGET,
    "remove": Role.FORGET,
    "forget_seen": Role.FORGET,
    "seen": Role.FORGET,
    "forget_unseen": Role.UNSEEN,
    "test": Role.UNSEEN,
    "keep": Role.RETAIN,
    "harmless": Role.BENIGN,
    "unknown": Role.STRANGER,
    "other": Role.GENERAL,
}
"""Name or alternative name -> role."""
_TALK: Final = ("conversations", "messages")
_MESSAGES: Final = ("question", "answer", "chosen", "rejected")
"""Columns that hold a text or messages."""
_ASKING: Final = ("human", "user")
_ANSWERING: Final = ("gpt", "assistant")
_SYSTEM: Final = "system"
_SHAPE: Final = "must be a list of {from: human, value} and {from: gpt, value} (or {role, content}) in turn"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows of a table become rows of unsee's columns."""

    columns: frozenset[str]
    """Columns of the table."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Column of unsee -> column of the table, given or guessed."""
    guessed: Mapping[str, str] = field(default_factory=dict)
    """The part of `fields` that was guessed."""

    @property
    def talk(self) -> str:
        """Column with a conversation, or empty."""
        return next((name for name in _TALK if name in self.names), "")

    @property
    def preference(self) -> bool:
        """Whether rows have a chosen and a rejected answer."""
        return {"chosen", "rejected"} <= self.names

    @cached_property
    def names(self) -> set[str]:
        """Columns after renaming."""
        source_columns = set(self.fields.values())
        return {*self.fields, *(column for column in self.columns if column not in source_columns)}

    def has(self, column: str) -> bool:
        """Tell whether every row can have this cell."""
        derived_columns = {"question", "answer"} if self.talk or self.preference else set()
        return column in self.names | derived_columns or (
            column == "image" and ("images" in self.names or bool(self.talk))
        )

    def unread(self) -> list[str]:
        """Return the columns that nothing is read from."""
        read_columns = READ if self.preference else READ - {"chosen", "rejected"}
        replaced_columns = {"question", "answer"} if self.talk else {"answer"} if self.preference else set()
        return sorted(self.names - (read_columns - replaced_columns))

    def rows(self, row: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
        """Return a row as one or several, one per question of a conversation.

        A row without an id gets the id `name`.
        """
        source_columns = set(self.fields.values())
        cells = {column: value for column, value in row.items() if column not in source_columns}
        cells |= {
            our_column: row[table_column] for our_column, table_column in self.fields.items() if table_column in row
        }
        cells |= {"images": decoded(cells["images"], "images")} if "images" in cells else {}
        cells |= {column: _decoded_messages(cells[column]) for column in _MESSAGES if column in cells}
        if self.preference:
            cells = _preference_row(cells)
        if any(_are_messages(cells.get(column)) for column in ("question", "answer")):  # TRL: prompt and completion
            cells = _as_talk(cells)
        talk_column = next((column for column in _TALK if not is_empty(cells.get(column))), "")
        if not talk_column and self.talk:
            raise UserError(f"{self.talk} {_SHAPE}, got {short_repr(cells.get(self.talk))}.")
        turns = _turns(cells, talk_column, name) if talk_column else [cells]
        if "image" in self.guessed:  # it counts only where the row has no other picture
            turns = [{**turn, "image": None} if _as_list(turn.get("images")) else turn for turn in turns]
        return turns


def layout_of(columns: Collection[str], user_fields: Mapping[str, str], folder_fields: Mapping[str, str]) -> Layout:
    """Return the layout of a table with these columns.

    `user_fields` are the user's names of columns, `folder_fields` those of the folder. Missing ones are guessed where
    only one fits.
    """
    for our_column, table_column in user_fields.items():
        if our_column not in READ:
            raise unknown_name("column of unsee in fields", str(our_column), READ)
        if table_column not in columns:
            raise unknown_name("column", table_column, columns)
    fields = {
        our_column: table_column
        for our_column, table_column in {**folder_fields, **user_fields}.items()
        if table_column in columns and our_column != table_column
    }
    free_columns = set(columns) - set(fields.values())
    given_layout = Layout(columns=frozenset(columns), fields=fields)
    guesses: dict[str, str] = {}
    for our_column in _FOUND:
        names = (our_column, *OTHER_NAMES.get(our_column, ()))
        matches = sorted(
            column
            for column in free_columns.difference(guesses.values())
            if column.casefold().strip().replace(" ", "_") in names
        )
        if len(matches) == 1 and matches[0] != our_column and _is_open(our_column, given_layout):
            guesses[our_column] = matches[0]
    return Layout(columns=frozenset(columns), fields={**fields, **guesses}, guessed=guesses)


def _is_open(column: str, layout: Layout) -> bool:
    """Tell whether a column may be guessed: none has its name, and nothing else gives every row its cell."""
    if column in layout.names:
        return False
    if column == "image":  # lists of pictures may be empty, and messages without any
        return True
    return not layout.has(column) or (column == "question" and layout.preference and not layout.talk)


def role_of(word: str) -> Role | None:
    """Return the role of this name, however it is written, or None if there is none."""
    return ROLES.get(word.strip().casefold().replace("-", "_").replace(" ", "_"))


def _preference_row(cells: dict[str, Any]) -> dict[str, Any]:
    """Return a preference row as a question and the answer that the model gives now.

    Rows to be forgotten take the rejected answer, all others the chosen one, also as text for roles assigned later.
    """
    role, chosen = cells.get("role"), cells["chosen"]
    answer = cells["rejected"] if is_empty(role) or role_of(str(role)) in OF_TARGETS else chosen
    chosen_text = _turn(chosen[-1])[1] if _are_messages(chosen) else chosen
    other_cells = {key: value for key, value in cells.items() if key not in ("chosen", "rejected")}
    other_cells[KEPT_ANSWER] = chosen_text
    if _are_messages(answer) and "question" not in other_cells:
        return {**other_cells, "messages": answer}
    return {**other_cells, "answer": answer}


def _are_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and ("role" in item or "from" in item) for item in value)
    )


def _decoded_messages(value: Any) -> Any:
    """Return a cell as messages if it is their JSON text, else unchanged: a text may begin with a bracket."""
    try:
        messages = decoded(value, "")
    except UserError:
        return value
    return messages if _are_messages(messages) else value


def _as_talk(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt and completion, one of them a list of messages, as one conversation."""
    speakers = {"question": "user", "answer": "assistant"}
    messages: list[Any] = []
    for column, role in speakers.items():
        value = cells.get(column)
        messages += value if isinstance(value, list) else [{"role": role, "content": value}]
    return {**{key: value for key, value in cells.items() if key not in speakers}, "messages": messages}


def _turns(row: Mapping[str, Any], column: str, name: str) -> list[dict[str, Any]]:
    """Return one set of cells per question and answer of a conversation, all with its image.

    A system message is left out, since prompts have none; earlier turns are not repeated.
    """
    messages = decoded(row.get(column), column)
    if not isinstance(messages, list) or not messages or not all(isinstance(message, Mapping) for message in messages):
        raise UserError(f"{column} {_SHAPE}, got {short_repr(messages)}.")
    turns = [_turn(message) for message in messages]
    turns = turns[1:] if turns[0][0] == _SYSTEM else turns
    speakers = [speaker for speaker, _, _ in turns]
    users_ask = all(speaker in _ASKING for speaker in speakers[::2])
    models_answer = all(speaker in _ANSWERING for speaker in speakers[1::2])
    if not turns or len(turns) % 2 or not users_ask or not models_answer:
        raise UserError(f"{column} {_SHAPE}, got speakers {short_repr(speakers)}.")
    shared_cells = {key: value for key, value in row.items() if key != column}
    if pictures := [picture for *_, turn_pictures in turns for picture in turn_pictures if picture is not None]:
        shared_cells["images"] = [*_as_list(shared_cells.get("images")), *pictures]
    picture_count = len(_as_list(shared_cells.get("image"))) + len(_as_list(shared_cells.get("images")))
    marks = sum(max(text.count(MARK), len(turn_pictures)) for _, text, turn_pictures in turns[::2])
    require_pictures(marks, picture_count)
    base_id = as_text(shared_cells.get("id")) or name
    ids = [base_id] if len(turns) == 2 else [f"{base_id}#{index}" for index in range(len(turns) // 2)]
    return [
        {**shared_cells, "id": turn_id, "question": question.replace(MARK, ""), "answer": answer}
        for turn_id, (_, question, _), (_, answer, _) in zip(ids, turns[::2], turns[1::2], strict=True)
    ]


def _turn(message: Mapping[str, Any]) -> tuple[str, str, list[Any]]:
    """Return speaker, text and pictures of a message in any of the formats.

    A picture is None if its part stands for one of the row.
    """
    speaker = message.get("from", message.get("role"))
    content = message.get("value", message.get("content"))
    if isinstance(content, str):
        return str(speaker), content, []
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise UserError(f"a message has a value that is no text: {short_repr(content)}.")
    texts, pictures = [], []
    for part in content:
        part_type = part.get("type")
        if part_type == "text":
            texts.append(str(part.get("text") or ""))
        elif part_type in ("image", "image_url"):
            pictures.append(_picture(part))
        else:
            raise UserError(
                f"a message has a part of type {short_repr(part_type)}; text, image and image_url are read."
            )
    return str(speaker), "\n".join(text for text in texts if text), pictures


def _picture(part: Mapping[str, Any]) -> Any:
    """Return the picture of a message part, or None if it stands for an image of the row."""
    if unread := [name for name in ("base64", "source", "data", "file_id") if not is_empty(part.get(name))]:
        raise UserError(
            f"a message has a picture as {unread[0]}, which is not read; give it as image: a path or a data: address."
        )
    values = (part.get(name) for name in ("image", "path", "url", "image_url"))
    value = next((value for value in values if not is_blank(value)), None)
    value = value.get("url") if isinstance(value, Mapping) and "url" in value else value
    return picture_of(value) if isinstance(value, str) else value


def picture_of(text: str) -> str | bytes:
    """Return the picture in a `data:` address, or the path that a text or a `file:` address gives.

    Raises:
        UserError: The picture cannot be decoded, or lies on the network.
    """
    scheme, _, rest = text.partition(":")
    scheme = scheme.casefold()
    if scheme == "data":
        try:
            return base64.b64decode(text.partition("base64,")[2], validate=True)
        except binascii.Error as error:
            raise UserError(f"a picture in a data: address is no base64: {error}.") from error
    if scheme in ("http", "https") and rest.startswith("//"):
        raise UserError(f"the image {short_repr(text)} lies on the network; save it and give its path.")
    return unquote(rest.removeprefix("//")) if scheme == "file" and rest.startswith("//") else text


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if is_blank(value) else [value]


def is_blank(picture: Any) -> bool:
    """Tell whether a cell holds no picture, also as the mapping that `datasets` writes of it."""
    return all(map(is_empty, picture.values())) if isinstance(picture, Mapping) else is_empty(picture)


def require_pictures(marks: int, pictures: int) -> None:
    """Raise if a text has more image placeholders than its row has images."""
    if marks > pictures:
        raise UserError(
            f"the text has {marks} {MARK} mark{'s' * (marks > 1)} (or part of type image), but the row has {pictures or 'no'} "
            "picture. Give the picture in column image, or remove the mark."
        )
