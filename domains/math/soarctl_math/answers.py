"""What an answer is: a value with a unit, a tuple, an interval, a list, a relation, words. And how one is read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from soarctl_math.expressions import Node, literal, number, parse_expression, signs, with_sign
from soarctl_math.tokens import COMMAND, NUMBER, SIGN, WORDS, Token, Unreadable, named, tokenize

MAX_ITEMS = 64


@dataclass(frozen=True, slots=True)
class Value:
    node: Node
    unit: str = ""
    """Words, "%", "$" or "deg"; empty where none is given."""


@dataclass(frozen=True, slots=True)
class Words:
    words: str
    """In lower case, letters and digits only."""


@dataclass(frozen=True, slots=True)
class Choice:
    letter: str
    rest: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Group:
    kind: str
    """"list" without brackets, "set" with braces, "pair" for what is bracketed: a tuple or an interval."""
    items: tuple["Answer", ...]
    brackets: str = ""


@dataclass(frozen=True, slots=True)
class Combination:
    operator: str
    """"cup", "cap" or "setminus"."""
    parts: tuple["Answer", ...]


@dataclass(frozen=True, slots=True)
class Relation:
    sides: tuple["Answer", ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A set builder: the variables are not kept, what they satisfy is."""

    relation: "Answer"


@dataclass(frozen=True, slots=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    hour: int
    minute: int
    half: str
    second: int = 0


@dataclass(frozen=True, slots=True)
class Based:
    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Named:
    """A set with a name of its own: R, Z, or the empty one."""

    name: str


Answer = Value | Words | Choice | Group | Combination | Relation | Condition | Matrix | Ratio | Clock | Based | Named

_RELATIONS = frozenset({"=", "<", ">", "<=", ">=", "!="})
_OPEN = frozenset({"(", "[", "{", r"\{"})
_CLOSE = frozenset({")", "]", "}", r"\}"})
_SETS = {"cup": "cup", "cap": "cap", "setminus": "setminus"}
_COUNTING = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBER_WORDS = {word: value for value, word in enumerate(_COUNTING)}
_LEADING = re.compile(
    r"(?:the )?(?:final |correct |required )?(?:answer|result|value|solution|option|choice)s?(?: is| are| equals)?"
    r"|(?:the )?(?:point|interval|set|number|pair|ordered pair)s?"
    r"|so|thus|hence|therefore|if|exactly|about|approximately|is"
)
_NOT_UNITS = named(
    "or and not if then else maybe is isn wrong incorrect but wait no none unless except import return lambda exec"
    " eval because since for while factorial modulo mod base corrected"
)
_CLOCK = re.compile(r"(\d{1,2})(?:\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?)?\s*(?:([apAP])\.?\s?[mM]\b\.?)?")
_BASED = re.compile(r"\(?([0-9]+|[0-9A-F]+|\\text\{[0-9A-F]+\})\)?_\{?(?:\\text\s?\{)?\s*(\d{1,2}|[a-z]+)\s*\}?\}?")
_CHOICE = re.compile(r"\(?\s*([A-Za-z])\s*\)?[.:]?(?:\s*(\S.*))?", re.DOTALL)
_MARKED_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)|([A-Z])[.:)]")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|bf|rm)\s*\{([^{}]*)\}")
_MATRIX = re.compile(r"\\begin\{([bpvBV]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_NAMED_SETS = {
    "allrealnumbers": Named("R"),
    "allreals": Named("R"),
    "realnumbers": Named("R"),
    "therealnumbers": Named("R"),
    "emptyset": Named("empty"),
    "theemptyset": Named("empty"),
}
_BASE_WORDS = {word: value for word, value in _NUMBER_WORDS.items() if value >= 2}
_NOT_WORD = re.compile(r"[^a-z0-9]+")


def read(text: str, *, thousands: bool = True) -> Answer:
    """The answer that a tidied text gives.

    Args:
        text: see `tidy`.
        thousands: see `tokenize`.

    Raises:
        Unreadable: it gives none that we understand.
    """
    if (special := _special(text)) is not None:
        return special
    return _read(tokenize(text, thousands=thousands))


def _special(text: str) -> Answer | None:
    if clock := _CLOCK.fullmatch(_TEXT.sub(r"\1", text) if "\\" in text else text):
        hour, minute = int(clock[1]), int(clock[2] or 0)
        # Without a.m. or p.m. it is a time only if it cannot well be a ratio.
        if clock[4] or (clock[2] and hour <= 24 and minute < 60 and (clock[3] or clock[2].startswith("0"))):
            return Clock(hour, minute, (clock[4] or "").lower(), int(clock[3] or 0))
    if "_" in text and (based := _BASED.fullmatch(text.lstrip("-").strip())):
        base = int(based[2]) if based[2].isdigit() else _BASE_WORDS.get(based[2], 0)
        digits, sign = _TEXT.sub(r"\1", based[1]), "-" if text.startswith("-") else ""
        if 2 <= base <= 36 and len(digits) < 600 and not (len(digits) == 1 and digits.isalpha()):
            return Based(sign + (digits.lstrip("0") or "0"), base)
    if "\\begin" in text and (matrix := _MATRIX.fullmatch(text)):
        return _matrix(matrix[1], matrix[2])
    return _choice(text)


def _choice(text: str) -> Choice | None:
    plain = text if "\\" not in text else _TEXT.sub(lambda m: m[1] if len(m[1].strip()) <= 4 else m[0], text).strip()
    if plain.startswith("{") and plain.endswith("}"):
        plain = plain[1:-1].strip()
    marked = _MARKED_CHOICE.match(plain)
    if marked and (marked[1] is None or plain != text or marked.end() == len(plain) or plain[marked.end()] == " "):
        letter = (marked[1] or marked[2]).upper()
        rest = plain[marked.end() :].strip()
        if not rest:
            return Choice(letter)
        if marked[1] and plain == text and not (marked[1] in "ABCDEFGH" and plain[marked.end()] == " "):
            return None  # (x) 5 in plain mathematics is a product
        try:
            return Choice(letter, _read(tokenize(rest)))
        except Unreadable:
            return Choice(letter)
    if len(plain) == 1 and "A" <= plain <= "Z":
        return Choice(plain)
    return None


def _matrix(kind: str, body: str) -> Answer:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", body) if row.strip()]
    cells = tuple(tuple(_read(tokenize(cell)) for cell in row.replace("\\hline", "").split("&")) for row in rows)
    if kind in ("vmatrix", "Vmatrix"):
        return Value(_determinant(cells))
    if len(cells) > 12 or len({len(row) for row in cells}) != 1:
        raise Unreadable("a matrix whose rows differ in length")
    return Matrix(cells)


def _determinant(cells: tuple[tuple[Answer, ...], ...]) -> Node:
    nodes = [[cell.node for cell in row if isinstance(cell, Value)] for row in cells]
    if not 1 <= len(nodes) <= 3 or any(len(row) != len(nodes) for row in nodes):
        raise Unreadable("a determinant that is too large")
    return _expanded(nodes)


def _expanded(nodes: list[list[Node]]) -> Node:
    if len(nodes) == 1:
        return nodes[0][0]
    terms: list[Node] = []
    for column, head in enumerate(nodes[0]):
        minor = [[row[k] for k in range(len(row)) if k != column] for row in nodes[1:]]
        term = Node("times", (head, _expanded(minor)))
        terms.append(Node("negative", (term,)) if column % 2 else term)
    return Node("add", tuple(terms))


def _split(tokens: Sequence[Token], at: frozenset[str] | set[str], kind: str = SIGN) -> list[list[Token]]:
    """Tokens between separators that stand outside all brackets."""
    parts: list[list[Token]] = [[]]
    depth, bars = 0, False
    for token in tokens:
        if token.kind == SIGN:
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            bars ^= token.text == "|"
        elif token.kind == COMMAND:
            depth += (token.text in ("lfloor", "lceil")) - (token.text in ("rfloor", "rceil"))
        if depth == 0 and token.kind == kind and token.text in at:
            parts.append([])
        else:
            parts[-1].append(token)
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    return parts


def _read(tokens: list[Token]) -> Answer:
    if not tokens:
        raise Unreadable("nothing")
    tokens = _without_braces(tokens)
    joined = _split(tokens, {"or", "and"}, WORDS)
    if len(joined) > 1 and all(joined):
        joiner = next(t.text for t in tokens if t.kind == WORDS and t.text in ("or", "and"))
        parts = [_read(_without_comma(part)) for part in joined]
        if joiner == "and" and all(isinstance(p, Relation) and set(p.operators) - {"="} for p in parts):
            return Combination("cap", tuple(parts))
        return _joined(parts)
    for separator in (";", ","):
        parts = [part for part in _split(tokens, {separator}) if part]
        if len(parts) > 1:
            return _joined([_read(part) for part in parts], flatten=separator == ",")
        if parts and len(parts[0]) < len(tokens):
            tokens = parts[0]
    return _single(tokens)


def _without_braces(tokens: list[Token]) -> list[Token]:
    """The tokens without braces around single words: 4{cm}."""
    for at in range(len(tokens) - 2, 0, -1):
        if tokens[at].kind == WORDS and tokens[at - 1].text == "{" and tokens[at + 1].text == "}":
            tokens = [*tokens[: at - 1], tokens[at], *tokens[at + 2 :]]
    return tokens


def _without_comma(tokens: list[Token]) -> list[Token]:
    while tokens and tokens[-1] == Token(SIGN, ","):
        tokens = tokens[:-1]
    while tokens and tokens[0] == Token(SIGN, ","):
        tokens = tokens[1:]
    return tokens


def _joined(parts: list[Answer], *, flatten: bool = True) -> Group:
    items: list[Answer] = []
    for part in parts:
        items += part.items if flatten and isinstance(part, Group) and part.kind == "list" else [part]
    return Group("list", tuple(items))


def _single(tokens: list[Token]) -> Answer:
    """An answer without a comma or "or" outside its brackets."""
    if all(token.kind == WORDS for token in tokens):
        return _words(" ".join(token.text for token in tokens))
    if tokens[0].kind == WORDS and _LEADING.fullmatch(tokens[0].text.lower().strip(" :")):
        tokens = tokens[2:] if len(tokens) > 2 and tokens[1] == Token(SIGN, ":") else tokens[1:]
        return _read(tokens)
    while len(tokens) > 2 and tokens[0].text == "{" and _closes(tokens) == len(tokens) - 1:
        tokens = tokens[1:-1]
        if len(_split(tokens, {","})) > 1:
            return _read(tokens)
    relation = _relation(tokens)
    if relation is not None:
        return relation
    for operator in ("cup", "cap", "setminus"):
        parts = _split(tokens, {operator}, COMMAND)
        if len(parts) > 1:
            return Combination(operator, tuple(_read(part) for part in parts))
    if (named := _named(tokens)) is not None:
        return named
    if tokens[0].kind == SIGN and tokens[0].text in ("(", "[", r"\{") and _bracketed(tokens) == len(tokens) - 1:
        group = _group(tokens)
        if group is not None:
            return group
    ratio = _split(tokens, {":"})
    if len(ratio) > 1 and all(ratio):
        return Ratio(tuple(Value(parse_expression(part)) for part in ratio))
    return _value(tokens)


def _closes(tokens: Sequence[Token]) -> int:
    depth = 0
    for position, token in enumerate(tokens):
        if token.kind == SIGN:
            depth += (token.text == tokens[0].text) - (token.text == {"{": "}"}.get(tokens[0].text))
        if depth == 0:
            return position
    return -1


def _bracketed(tokens: Sequence[Token]) -> int:
    """Where the bracket closes that the tokens begin with; half-open intervals close with another one."""
    depth = 0
    for position, token in enumerate(tokens):
        if token.kind == SIGN:
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0:
            return position
    return -1


def _relation(tokens: list[Token]) -> Answer | None:
    sides: list[list[Token]] = [[]]
    operators: list[str] = []
    depth = bars = 0
    for token in tokens:
        if token.kind == SIGN:
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            bars += token.text == "|"
        operator = token.text if token.kind == SIGN and token.text in _RELATIONS else ""
        if token.kind == COMMAND and token.text in ("approx", "in", "equiv"):
            operator = token.text
        if operator and depth == 0:
            operators.append(operator)
            sides.append([])
        else:
            sides[-1].append(token)
    if not operators:
        return None
    if len(operators) == 1 and operators[0] in ("=", "approx") and not sides[0]:
        return _single(sides[1])
    if not all(sides):
        raise Unreadable("a relation without one of its sides")
    return Relation(tuple(_side(side) for side in sides), tuple(operators))


def _side(tokens: list[Token]) -> Answer:
    return _single(tokens)


def _named(tokens: list[Token]) -> Named | None:
    texts = [token.text for token in tokens if token.text not in "{}"]
    if texts in (["mathbb", "R"], ["mathbf", "R"]):
        return Named("R")
    if texts in (["mathbb", "Z"], ["mathbb", "N"], ["mathbb", "Q"], ["mathbb", "C"]):
        return Named(texts[1])
    if texts == ["emptyset"] or [token.text for token in tokens] == [r"\{", r"\}"]:
        return Named("empty")
    return None


def _group(tokens: list[Token]) -> Answer | None:
    """What stands in brackets, or None where they are those of an expression."""
    opener, closer, inside = tokens[0].text, tokens[-1].text, tokens[1:-1]
    if opener == r"\{":
        for bar in ("|", ":"):
            head, *tail = _split(inside, {bar})
            if len(tail) == 1 and head and tail[0] and any(t.text in _RELATIONS | {"in"} for t in tail[0]):
                return Condition(_read(tail[0]))
        return Group("set", _joined(_items(inside)).items)
    items = _items(inside)
    if len(items) == 1:
        if opener == "(" and closer == ")":
            return None if isinstance(items[0], Value) and not items[0].unit else items[0]
        return Group("pair", tuple(items), opener + closer)
    return Group("pair", tuple(items), opener + closer)


def _items(tokens: list[Token]) -> list[Answer]:
    separator = ";" if len(_split(tokens, {";"})) > 1 else ","
    return [_read(part) for part in _split(tokens, {separator}) if part]


def _words(text: str) -> Answer:
    lowered = text.lower()
    if len(text) == 1 and text.isupper():
        return Choice(text)
    if lowered in _NUMBER_WORDS:
        return Value(number(_NUMBER_WORDS[lowered]))
    words = _NOT_WORD.sub("", lowered)
    if not words:
        raise Unreadable("no words")
    return _NAMED_SETS.get(words) or Words(words)


_UNITS = {
    "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "kilometer": "km", "meter": "m", "metre": "m",
    "kilogram": "kg", "gram": "g", "percentage": "%", "percent": "%", "dollar": "$", "buck": "$", "degree": "deg",
    "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s", "feet": "ft", "foot": "ft", "inche": "in",
    "inch": "in", "yard": "yd", "pound": "lb", "ounce": "oz", "squared": "^2", "cubed": "^3", "sq": "square",
}  # fmt: skip


def unit_name(words: str) -> str:
    """One name for the spellings of a unit: "square inches" and "in^2" are the same."""
    names: list[str] = []
    found: list[str] = re.findall(r"[a-z]+|\^\d|/|%", words.lower())
    for word in found:
        stem = word[:-1] if len(word) > 2 and word.endswith("s") else word
        names.append("/" if stem == "per" else _UNITS.get(stem, stem))
    name = "".join(names)
    if names and names[0] in ("square", "cubic") and name[len(names[0]) :] not in ("unit", ""):
        name = name[len(names[0]) :] + ("^2" if names[0] == "square" else "^3")
    return {"mi/h": "mph", "mile/h": "mph", "km/h": "kph", "$dollar": "$"}.get(name, name)


def _value(tokens: list[Token]) -> Answer:
    tokens, unit = _unit(tokens)
    if not tokens:
        raise Unreadable("a unit without a value")
    if tokens[0].kind == SIGN and tokens[0].text in ("(", "[") and _bracketed(tokens) == len(tokens) - 1 and unit:
        inner = _single(tokens)
        return inner if not isinstance(inner, Value) else Value(inner.node, unit)
    node = parse_expression(tokens)
    if node.head == "degrees" and not unit:
        node, unit = node.below[0], "deg"
    if node.head == "negative" and node.below[0].head == "degrees" and not unit:
        node, unit = Node("negative", (node.below[0].below[0],)), "deg"
    if signs(node):
        return Group("list", tuple(Value(with_sign(node, plus), unit) for plus in (True, False)))
    return Value(node, unit)


def _unit(tokens: list[Token]) -> tuple[list[Token], str]:
    """The tokens without a unit before or after them, and the unit."""
    unit = ""
    signs_before = 1 if tokens[0].text == "-" else 0
    if len(tokens) > signs_before and tokens[signs_before].text == r"\$":
        tokens, unit = [*tokens[:signs_before], *tokens[signs_before + 1 :]], "$"
    exponent = ""
    if len(tokens) > 2 and tokens[-2].text == "^" and tokens[-1].kind == NUMBER and tokens[-3].kind == WORDS:
        tokens, exponent = tokens[:-2], f"^{tokens[-1].text}"
    elif len(tokens) > 4 and [t.text for t in tokens[-4:-2]] == ["^", "{"] and tokens[-5].kind == WORDS:
        tokens, exponent = tokens[:-4], f"^{tokens[-2].text}"
    if len(tokens) > 1 and tokens[-1].kind == WORDS:
        words = tokens[-1].text
        if set(re.split(r"[^a-z]+", words.lower())) & _NOT_UNITS or len(words.split()) > 5:
            raise Unreadable(f'"{words}" after a value')
        tokens, unit = tokens[:-1], unit or unit_name(words + exponent)
        return _unit(tokens) if unit and tokens and tokens[-1].kind == WORDS else (tokens, unit)
    if exponent:
        raise Unreadable("a power of words")
    if len(tokens) > 1 and tokens[-1].text in ("%", r"\%"):
        return tokens[:-1], unit or "%"
    if len(tokens) > 1 and tokens[-1].text == r"\$":
        return tokens[:-1], unit or "$"
    if len(tokens) > 2 and [t.text for t in tokens[-2:]] == ["circ", "C"]:
        raise Unreadable("a temperature")
    return tokens, unit


def fraction_of(text: str) -> Fraction | None:
    """The value of a plain integer, decimal or fraction of integers; the quick way for most answers there are."""
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    if match[1] is not None:
        value = literal(match[1].replace(",", ""))
        if match[2] is not None:
            bottom = literal(match[2])
            if not bottom:
                return None
            value /= bottom
    else:
        bottom = literal(match[4])
        if not bottom:
            return None
        value = literal(match[3]) / bottom
    return -value if text.startswith("-") else value


_PLAIN = re.compile(
    r"[+-]?(?:(\d{1,60}(?:\.\d{1,60})?|\.\d{1,60}|\d{1,3}(?:,\d{3})+)(?:/(\d{1,60}))?"
    r"|\\frac\{(\d{1,60})\}\{(\d{1,60})\})"
)
