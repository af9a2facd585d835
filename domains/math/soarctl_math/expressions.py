"""Tokens of one expression to a tree. A recursive descent with a depth limit; nothing is evaluated here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from soarctl_math.tokens import COMMAND, FUNCTIONS, LETTER, NUMBER, SIGN, WORDS, Token, Unreadable, Unsupported, named

MAX_DEPTH = 30
MAX_EXPONENT = 4000
"""Of scientific notation: 1e4000 is the largest power of ten that a literal may name."""


@dataclass(frozen=True, slots=True)
class Node:
    """An expression. `head` says what it is, `name` or `value` which; the rest is below."""

    head: str
    below: tuple["Node", ...] = ()
    name: str = ""
    value: Fraction = field(default=Fraction(0))


def number(value: int | Fraction) -> Node:
    return Node("number", value=Fraction(value))


def add(*terms: Node) -> Node:
    return terms[0] if len(terms) == 1 else Node("add", terms)


def times(*factors: Node) -> Node:
    return factors[0] if len(factors) == 1 else Node("times", factors)


def _appended(product: Node, factor: Node) -> Node:
    return times(*product.below, factor) if product.head == "times" else times(product, factor)


def over(top: Node, bottom: Node) -> Node:
    return Node("over", (top, bottom))


def negative(node: Node) -> Node:
    return Node("negative", (node,))


def power(base: Node, exponent: Node) -> Node:
    return Node("power", (base, exponent))


def function(name: str, *arguments: Node) -> Node:
    return Node("function", arguments, name)


_GREEK = named(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau"
    " upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar odot"
)
_PREFIXES = frozenset({"angle", "triangle", "measuredangle", "overline", "vec", "bar", "hat", "tilde", "widehat"})
_TRIGONOMETRIC = named("sin cos tan cot sec csc")
_FOREIGN = named("begin end sum prod int lim det pmod bmod mod partial mathbb cup cap setminus")
"""What Math-Verify reads and we do not. A command that it does not know it drops, and \\neg 5 would be 5."""
_CLOSERS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|", "lfloor": "rfloor", "lceil": "rceil"}
APPLIED = frozenset("fghFGPQ")
"""Letters that are functions where a parenthesis follows them."""
_INVERSE = ["^", "{", "-", "1", "}", "("]


class _Reader:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def is_sign(self, *signs: str) -> bool:
        token = self.peek()
        return token is not None and token.kind == SIGN and token.text in signs

    def is_command(self, *names: str) -> bool:
        token = self.peek()
        return token is not None and token.kind == COMMAND and token.text in names

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise Unreadable("the expression ends too early")
        self.at += 1
        return token

    def expect(self, text: str) -> None:
        if self.take().text != text:
            raise Unreadable(f'"{text}" is missing')

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        terms = [self.signed()]
        while self.is_sign("+", "-") or self.is_command("pm", "mp"):
            terms.append(self.signed())
        self.depth -= 1
        return add(*terms)

    def signed(self) -> Node:
        """A term with its signs."""
        minus, linked = False, ""
        while self.is_sign("+", "-") or self.is_command("pm", "mp"):
            sign = self.take().text
            if sign == "-":
                minus = not minus
            elif sign in ("pm", "mp"):
                linked = sign
        term = self.product()
        if linked:
            term = Node("sign", (term,), linked)
        return negative(term) if minus else term

    def product(self, *, argument: bool = False) -> Node:
        """Factors up to a sum, a relation or an end; as a function's `argument`, up to another function as well."""
        result = self.unary()
        while (token := self.peek()) is not None:
            if token.kind == SIGN and token.text in "*/":
                if argument and token.text == "*":
                    return result
                self.take()
                factor = self.unary()
                result = over(result, factor) if token.text == "/" else _appended(result, factor)
            elif token.kind == SIGN and token.text == ":":
                raise Unreadable("a ratio inside an expression")
            elif self._starts_factor(token, argument):
                result = _appended(result, self.factor())
            else:
                break
        return result

    def _starts_factor(self, token: Token, argument: bool) -> bool:
        if token.kind == COMMAND:
            if argument and token.text in FUNCTIONS - {"frac", "sqrt"}:
                return False
            return token.text not in ("pm", "mp", "rfloor", "rceil", "cup", "cap", "choose", "text", "pmod")
        if token.kind == SIGN:
            return token.text in ("(", "[", "{") and not (argument and token.text == "(")
        return token.kind in (LETTER, NUMBER)

    def unary(self) -> Node:
        if self.is_sign("-"):
            self.take()
            return negative(self.unary_deeper())
        if self.is_sign("+"):
            self.take()
            return self.unary_deeper()
        return self.factor()

    def unary_deeper(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        node = self.unary()
        self.depth -= 1
        return node

    def factor(self) -> Node:
        node = self.atom()
        while (token := self.peek()) is not None and token.kind == SIGN:
            if token.text == "!":
                self.take()
                if self.is_sign("!"):
                    raise Unsupported("a double factorial")
                node = function("factorial", node)
            elif token.text == "^":
                self.take()
                if self.is_command("circ"):
                    self.take()
                    node = Node("degrees", (node,))
                else:
                    node = self.raised(node)
            elif token.text == "'" and node.head == "symbol":
                self.take()
                node = Node("symbol", name=node.name + "'")
            elif token.text in ("%", r"\%"):
                self.take()
                node = over(node, number(100))
            elif token.text == "_":
                self.take()
                node = self.lowered(node)
            else:
                break
        return node

    def raised(self, base: Node) -> Node:
        if self.is_sign("{") and self.at + 2 < len(self.tokens):
            inner, end = self.tokens[self.at + 1], self.tokens[self.at + 2]
            if inner == Token(COMMAND, "circ") and end.text == "}":
                self.at += 3
                return Node("degrees", (base,))
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        minus = False
        while self.is_sign("-", "+"):
            minus ^= self.take().text == "-"
        exponent = self.group("{") if self.is_sign("{") else self.atom()
        if self.is_sign("^"):  # right to left: 9^9^9 is 9^(9^9)
            self.take()
            exponent = self.raised(exponent)
        self.depth -= 1
        return power(base, negative(exponent) if minus else exponent)

    def lowered(self, base: Node) -> Node:
        if base.head != "symbol":
            raise Unreadable("an index on something that is no name")
        return Node("symbol", name=f"{base.name}_{self.subscript()}")

    def subscript(self) -> str:
        """The text of an index; its braces and spaces say nothing."""
        if not self.is_sign("{"):
            return self.take().text
        depth, parts = 0, list[str]()
        while True:
            token = self.take()
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                return "".join(parts)
            if token.text not in "{}":
                parts.append(token.text)

    def group(self, opener: str) -> Node:
        self.expect(opener)
        node = self.sum()
        if opener == "{" and self.is_command("choose"):
            self.take()
            node = function("binom", node, self.sum())
        self.expect(_CLOSERS[opener])
        return node

    def argument(self) -> Node:
        """What \\frac, \\sqrt and the like take: a group, or one digit, letter or command."""
        if self.is_sign("{"):
            return self.group("{")
        token = self.peek()
        if token is not None and token.kind == NUMBER and len(token.text) > 1 and "." not in token.text:
            rest = Token(NUMBER, token.text[1:])
            self.tokens = [*self.tokens[: self.at + 1], rest, *self.tokens[self.at + 1 :]]
            self.at += 1
            return number(int(token.text[0]))
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        node = self.atom()
        self.depth -= 1
        return node

    def atom(self) -> Node:
        token = self.take()
        if token.kind == NUMBER:
            return self.numeral(token.text)
        if token.kind == LETTER:
            return self.letter(token.text)
        if token.kind == COMMAND:
            return self.command(token.text)
        if token.kind == SIGN and token.text in ("(", "[", "{", "|"):
            self.at -= 1
            return function("abs", self.group("|")) if token.text == "|" else self.choose_or_group(token.text)
        if token.kind == WORDS:
            raise Unreadable(f'"{token.text}" inside an expression')
        raise Unreadable(f'"{token.text}" where a value should be')

    def choose_or_group(self, opener: str) -> Node:
        self.expect(opener)
        node = self.sum()
        if self.is_command("choose"):
            self.take()
            node = function("binom", node, self.sum())
        self.expect(_CLOSERS[opener])
        return node

    def numeral(self, text: str) -> Node:
        value = literal(text)
        if "." in text and self.is_command("overline", "bar", "dot"):
            return self.repeating(text)
        token = self.peek()
        whole = value.denominator == 1 and "." not in text
        if whole and token is not None:
            if token == Token(COMMAND, "frac") and (part := self.proper_fraction()) is not None:
                return number(value + part)
            after = self.tokens[self.at : self.at + 3]
            shape = [t.text if t.kind == SIGN else t.kind for t in after]
            if shape == [NUMBER, "/", NUMBER] and int(literal(after[0].text)) < int(literal(after[2].text)):
                self.at += 3
                return number(value + literal(after[0].text) / literal(after[2].text))
        return number(value)

    def proper_fraction(self) -> Fraction | None:
        """The value of a \\frac of two integers that makes a mixed number, or None with nothing taken."""
        at, tokens = self.at, self.tokens
        self.take()
        try:
            top, bottom = self.argument(), self.argument()
        except Unreadable:
            top = bottom = Node("none")
        if top.head == bottom.head == "number" and bottom.value != 0 and top.value.denominator == 1:
            return top.value / bottom.value
        self.at, self.tokens = at, tokens
        return None

    def repeating(self, text: str) -> Node:
        self.take()
        self.expect("{")
        digits = self.take().text
        self.expect("}")
        if not digits.isdigit():
            raise Unreadable("an overline over something that is no digit")
        scale = 10 ** len(text.partition(".")[2])
        return number(literal(text) + Fraction(int(digits), (10 ** len(digits) - 1) * scale))

    def letter(self, name: str) -> Node:
        if name in ("e", "i"):
            return Node("constant", name=name) if not self.is_sign("_", "'") else Node("symbol", name=name)
        node = Node("symbol", name=name)
        while self.is_sign("'"):
            self.take()
            node = Node("symbol", name=node.name + "'")
        if self.is_sign("_"):
            self.take()
            node = self.lowered(node)
        if name in APPLIED and [token.text for token in self.tokens[self.at : self.at + 6]] == _INVERSE:
            self.at += 5
            return Node("applied", (self.group("("),), f"{name}^-1")
        if name in APPLIED and self.is_sign("("):
            return Node("applied", (self.group("("),), node.name)
        return node

    def command(self, name: str) -> Node:
        if name in ("pi", "infty"):
            return Node("constant", name=name)
        if name == "frac":
            top = self.argument()
            return over(top, self.argument())
        if name == "binom":
            top = self.argument() if not self.is_sign("(") else None
            if top is None:
                raise Unreadable("binom with parentheses")
            return function("binom", top, self.argument())
        if name == "sqrt":
            return self.root()
        if name in ("lfloor", "lceil"):
            node = self.sum()
            if self.take().text != _CLOSERS[name]:
                raise Unreadable(f"\\{name} is not closed")
            return function("floor" if name == "lfloor" else "ceil", node)
        if name in FUNCTIONS:
            return self.called(name)
        if name in _GREEK:
            return Node("symbol", name=name)
        if name in _PREFIXES:
            inner = self.argument() if self.is_sign("{") else self.product()
            return Node("symbol", name=f"{name} {spelled(inner)}")
        if name in ("displaystyle", "it", "rm", "bf"):
            return self.atom()
        raise (Unsupported if name in _FOREIGN else Unreadable)(f"\\{name} is not understood")

    def root(self) -> Node:
        degree = None
        if self.is_sign("["):
            self.take()
            degree = self.sum()
            self.expect("]")
        token = self.peek()
        if token is not None and token.kind == NUMBER:  # \sqrt10 is meant as the root of ten
            self.take()
            inside = number(literal(token.text))
        else:
            inside = self.group("(") if self.is_sign("(") else self.argument()
        return function("root", inside, degree or number(2))

    def called(self, name: str) -> Node:
        base = exponent = None
        while self.is_sign("_", "^"):
            if self.take().text == "_":
                base = self.argument_of_log()
            else:
                exponent = self.group("{") if self.is_sign("{") else self.atom()
        if exponent is not None and exponent == negative(number(1)) and name in _TRIGONOMETRIC:
            name, exponent = f"arc{name}", None
        if name in ("gcd", "lcm", "min", "max"):
            node = function(name, *self.several())
        else:
            braced = self.is_sign("{", "(", "[")
            inside = self.choose_or_group(self.tokens[self.at].text) if braced else self.product(argument=True)
            if braced and self.is_sign("^", "!") and exponent is None:
                self.at, inside = self.at, self._postfix(name, inside)
            node = function(name, inside) if base is None else function(name, inside, base)
        return node if exponent is None else power(node, exponent)

    def _postfix(self, name: str, inside: Node) -> Node:
        # \sin(x)^2 is left for `factor`, which squares the sine; \cos{13}^\circ is a degree sign in the argument.
        following = self.tokens[self.at + 1 : self.at + 3]
        if any(token.text == "circ" for token in following):
            self.take()
            return self.raised(inside) if self.is_sign("{") else (self.take(), Node("degrees", (inside,)))[1]
        return inside

    def argument_of_log(self) -> Node:
        if self.is_sign("{"):
            return self.group("{")
        # \log_28 is the logarithm of 8 to the base 2; \log_10 x is meant to have the base 10.
        return self.argument() if self.at + 1 == len(self.tokens) else self.atom()

    def several(self) -> list[Node]:
        self.expect("(")
        items = [self.sum()]
        while self.is_sign(","):
            self.take()
            items.append(self.sum())
        self.expect(")")
        return items


def literal(text: str) -> Fraction:
    """The exact value of a decimal literal.

    Raises:
        Unreadable: its exponent is out of all proportion.
    """
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT):
        raise Unreadable("an exponent out of all proportion")
    if len(mantissa) > 4000:
        raise Unreadable("a number with too many digits")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
    return value * Fraction(10) ** int(exponent) if exponent else value


def spelled(node: Node) -> str:
    """A canonical spelling: equal for trees that are the same."""
    if node.head == "number":
        return str(node.value)
    inner = ",".join(spelled(child) for child in node.below)
    return f"{node.name or node.head}({inner})" if inner else node.name


def parse_expression(tokens: Sequence[Token]) -> Node:
    """The tree of an expression that takes up all tokens.

    Raises:
        Unreadable: it is not one.
    """
    reader = _Reader(tokens)
    node = reader.sum()
    if reader.is_command("choose"):
        reader.take()
        node = function("binom", node, reader.sum())
    if (left := reader.peek()) is not None:
        if left.kind == COMMAND:
            raise (Unsupported if left.text in _FOREIGN else Unreadable)(f"\\{left.text} is left over")
        raise Unreadable(f'"{left.text}" is left over')
    return node


def signs(node: Node) -> bool:
    """Whether a plus-minus sign is in the tree."""
    return node.head == "sign" or any(signs(child) for child in node.below)


def with_sign(node: Node, plus: bool) -> Node:
    """The tree with every plus-minus read as plus or, all together, as minus; minus-plus the other way round."""
    if node.head == "sign":
        inner = with_sign(node.below[0], plus)
        return inner if (node.name == "pm") == plus else negative(inner)
    if not node.below:
        return node
    return Node(node.head, tuple(with_sign(child, plus) for child in node.below), node.name, node.value)


def symbols(node: Node) -> frozenset[str]:
    """Names of all variables in the tree, applied functions among them."""
    found = frozenset[str]().union(*(symbols(child) for child in node.below))
    return found | {node.name} if node.head in ("symbol", "applied") else found
