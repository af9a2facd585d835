"""Text of an answer to tokens. Nothing here looks at what the tokens mean together."""

import re
from dataclasses import dataclass

NUMBER, LETTER, COMMAND, WORDS, SIGN = "number", "letter", "command", "words", "sign"


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str


def named(names: str) -> frozenset[str]:
    """A set of names out of a text that lists them."""
    return frozenset(names.split())


class Unreadable(ValueError):
    """The text is not an answer that we understand. Its message is shown to people."""


class Unsupported(Unreadable):
    """The text is well formed, as far as we can see, but has a notation that we leave to Math-Verify."""


FUNCTIONS = named(
    "sqrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp gcd lcm min max abs floor ceil"
    " binom frac"
)
_OTHER_NAMES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "oo": "infty",
    "inf": "infty",
    "infinity": "infty",
}
_SPELLED = _OTHER_NAMES | {name: name for name in (*FUNCTIONS, "pi", "theta", "alpha", "beta")}
_JOINERS = frozenset({"or", "and"})
_SHORT_WORDS = named(
    "cm mm km ft kg mg mi lb oz mph kph hr hrs min sec yd yds sq pm am in of is no yes the not if so rad deg"
    " inch day days cow dog per all odd any one two six ten none mod"
)
_UNIT_LETTERS = frozenset("mgshlLNJVW")
_TEXT_COMMANDS = named("text mbox textbf textit textrm textnormal mathrm mathbf mathit mathsf rm bf hbox textsf emph")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>(?:\d+\.(?=\s*\\(?:overline|bar|dot))|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z0-9.]))?)
      | (?P<command>\\[A-Za-z]+)
      | (?P<escaped>\\.)
      | (?P<word>[A-Za-z]+)
      | (?P<sign><=|>=|!=|==|\*\*|->|=>|\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_MATHEMATICAL = re.compile(r"[\s\d.,+*/()^=-]*\d[\s\d.,+*/()^=%-]*")
_SIGNS = frozenset("+-*/^_()[]{}|=<>!,;:%'&?")
MAX_TOKENS = 400


def closing(text: str, start: int) -> int:
    """Where the brace group that opens at `start` ends.

    Raises:
        Unreadable: it does not end.
    """
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{" and text[position - 1 : position] != "\\":
            depth += 1
        elif text[position] == "}" and text[position - 1 : position] != "\\":
            depth -= 1
            if depth == 0:
                return position
    raise Unreadable("a brace is not closed")


def tokenize(text: str, *, thousands: bool = True) -> list[Token]:
    """Tokens of a tidied text.

    Args:
        text: see `tidy`.
        thousands: whether the comma in 1,000 groups digits, or separates two items.

    Raises:
        Unreadable: it holds a character or command that no answer has.
    """
    if thousands and "," in text:
        text = _THOUSANDS.sub(_grouped, text)
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            break  # white space at the end
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too many symbols")
        position = match.end()
        kind, piece = match.lastgroup, match[match.lastgroup or 0]
        if kind == "number":
            tokens.append(Token(NUMBER, piece))
        elif kind == "command":
            position = _command(text, piece[1:], position, tokens)
        elif kind == "escaped":
            if piece[1] not in "{}$%\\&_|":
                raise Unreadable(f"{piece} means nothing here")
            tokens.append(Token(SIGN, piece if piece[1] not in "%&" else piece[1]))
        elif kind == "word":
            _word(piece, tokens)
        elif piece[0] in _SIGNS and piece not in ("==", "=>"):
            tokens.append(Token(SIGN, "^" if piece == "**" else piece))
        else:
            raise Unreadable(f"{piece!r} is no part of an answer")
    return tokens


def _grouped(match: re.Match[str]) -> str:
    """A number without the commas between its digits; (100,200) is no number, but (1,000, 2,000) holds two."""
    before = match.string[: match.start()]
    inside = before.count("(") + before.count("[") > before.count(")") + before.count("]")
    return match[0] if inside and ", " not in match.string else match[0].replace(",", "")


def _command(text: str, name: str, position: int, tokens: list[Token]) -> int:
    if name not in _TEXT_COMMANDS:
        tokens.append(Token(COMMAND, name))
        return position
    while position < len(text) and text[position] == " ":
        position += 1
    if text[position : position + 1] != "{":
        return position
    end = closing(text, position)
    content = text[position + 1 : end].strip()
    if len(content) == 1 and content in _UNIT_LETTERS and tokens and tokens[-1].text[-1] in "0123456789)}":
        tokens.append(Token(WORDS, content))
    elif _MATHEMATICAL.fullmatch(content) or len(content) == 1 or "\\" in content:
        tokens += tokenize(content)
    elif content:
        _text(content, tokens)
    return end + 1


def _text(content: str, tokens: list[Token]) -> None:
    for part in re.split(r"(\b(?:or|and)\b|,)", content):
        if part == ",":
            tokens.append(Token(SIGN, ","))
        elif part.strip():
            _say(part.strip(), tokens)


def _word(word: str, tokens: list[Token]) -> None:
    lowered = word.lower()
    if lowered in _SPELLED and word not in ("Pi",):
        tokens.append(Token(COMMAND, _SPELLED[lowered]))
    elif len(word) >= 4 or lowered in _SHORT_WORDS or lowered in _JOINERS:
        _say(word, tokens)
    else:
        tokens += [Token(LETTER, letter) for letter in word]


def _say(words: str, tokens: list[Token]) -> None:
    if tokens and tokens[-1].kind == WORDS and not {tokens[-1].text, words.lower()} & _JOINERS:
        words = f"{tokens.pop().text} {words}"
    tokens.append(Token(WORDS, words.lower() if words.lower() in _JOINERS else words))
