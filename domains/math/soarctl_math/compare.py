"""Whether two answers are the same, by what they are: values, lists, tuples, intervals, relations, words."""

from collections.abc import Sequence

from soarctl_math import exact, numeric
from soarctl_math.answers import (
    Answer,
    Based,
    Choice,
    Clock,
    Combination,
    Condition,
    Group,
    Matrix,
    Named,
    Ratio,
    Relation,
    Value,
    Words,
)
from soarctl_math.exact import Beyond, Polynomial, Undefined
from soarctl_math.expressions import Node, add, negative, number, over, spelled, symbols, times
from soarctl_math.realsets import infinite, same_set

MAX_NUMERIC = 48
"""Numeric comparisons in one verdict: a list of many opaque items is not worth more."""
MAX_STEPS = 3000
"""Comparisons of parts in one verdict."""
_REVERSED = {">": "<", ">=": "<="}


class Comparison:
    """One comparison of a gold answer with another, and how it was decided."""

    def __init__(self) -> None:
        exact.allow(exact.WORK)
        self.steps = 0
        self.used_numeric = 0
        self.refused = False

    def answers(self, gold: Answer, answer: Answer) -> bool | None:
        """Whether they are the same; None where it cannot be decided here."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.refused = True
            return None
        gold, answer = _unwrapped(gold), _unwrapped(answer)
        for one, other in ((gold, answer), (answer, gold)):
            match one, other:
                case Group("list", items), Group("pair") | Combination() | Condition() | Named() if _inequalities(
                    items
                ):
                    # x > 2, x != 3 means both; x < 2, x > 3 can only mean either.
                    return any(same_set(Combination(operator, items), other) for operator in ("cap", "cup"))
                case Value() as value, Value() as other_value:
                    return self.quantities(value, other_value)
                case Choice(letter), Choice(other_letter):
                    return letter == other_letter
                case Choice(letter, None), Value(Node("symbol", _, name), ""):
                    return name == letter
                case Choice(_, rest), _ if rest is not None:
                    return self.answers(rest, other)
                case Words(words), Words(other_words):
                    return words == other_words
                case Based(digits, base), Based(other_digits, other_base):
                    return base == other_base and digits == other_digits
                case Based(digits), Value(node, "") if one is gold:  # the question has named the base
                    return node.head == "number" and str(node.value) == digits
                case Clock() as clock, Clock() as other_clock:
                    return _clock(clock, other_clock)
                case Clock(hour, minute), Ratio(items) if len(items) == 2:
                    return [item.node for item in items] == [number(hour), number(minute)]
                case Matrix(rows), Matrix(other_rows):
                    if [len(row) for row in rows] != [len(row) for row in other_rows]:
                        return False
                    cells = [cell for row in rows for cell in row]
                    return self.in_order(cells, [cell for row in other_rows for cell in row])
                case Ratio(items), Ratio(other_items):
                    return self.ratios(items, other_items)
                case Ratio(items), Value(node) if len(items) == 2 and not _whole(node):
                    return self.values(over(items[0].node, items[1].node), node)
                case Named(name), Named(other_name):
                    return name == other_name
                case Relation() as relation, Relation() as other_relation:
                    return self.relations(relation, other_relation)
                case Relation() as relation, _:
                    return self.relation_and_other(relation, other)
                case Group() as group, Group() as other_group:
                    return self.groups(group, other_group)
                case Group("list" | "set", items), Value() | Choice() | Words() | Matrix():
                    kept = self.different(items)  # 15 39/40 or 639/40: one value, given twice
                    return self.answers(kept[0], other) if len(kept) == 1 else False
                case (
                    (Group("pair") | Combination() | Condition() | Named()),
                    (Group() | Combination() | Condition() | Named()),
                ):
                    return same_set(one, other)
                case _:
                    continue
        return False

    def in_order(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        if len(gold) != len(answer):
            return False
        undecided = False
        for one, other in zip(gold, answer, strict=True):
            verdict = self.answers(one, other)
            if verdict is False:
                return False
            undecided |= verdict is None
        return None if undecided else True

    def in_any_order(self, gold: Sequence[Answer], answer: Sequence[Answer]) -> bool | None:
        if len(gold) != len(answer):
            gold, answer = self.different(gold), self.different(answer)
        if len(gold) != len(answer):
            return False
        if len(gold) > 2 and all(isinstance(item, Words) for item in gold):
            return self.in_order(gold, answer)  # names in a row are a ranking
        left, undecided = list(answer), False
        for one in gold:
            verdicts = [self.answers(one, other) for other in left]
            if True in verdicts:
                del left[verdicts.index(True)]
            elif None in verdicts:
                undecided = True
            else:
                return False
        return None if undecided else True

    def different(self, items: Sequence[Answer]) -> list[Answer]:
        """The items without repetitions."""
        kept: list[Answer] = []
        for item in items:
            if not any(item == other or self.answers(item, other) for other in kept):
                kept.append(item)
        return kept

    def groups(self, gold: Group, answer: Group) -> bool | None:
        if gold.kind != "pair" and answer.kind != "pair":
            named, other_named = self.assignments(gold), self.assignments(answer)
            if named is not None and other_named is not None:
                return self.in_any_order(named, other_named)
            if named is not None or other_named is not None:
                return self.in_any_order(_bare(gold), _bare(answer))
            verdict = self.in_any_order(gold.items, answer.items)
            return same_set(gold, answer) or False if verdict is False and _of_relations(gold, answer) else verdict
        if gold.kind == answer.kind:
            if gold.brackets != answer.brackets:
                return False
            return self.in_order(gold.items, answer.items)
        pair, other = (gold, answer) if gold.kind == "pair" else (answer, gold)
        if other.kind == "set" or pair.brackets != "()":
            return self.in_any_order(gold.items, answer.items) if len(pair.items) == 1 else False
        return self.in_order(pair.items, _bare(other, ordered=True))

    def assignments(self, group: Group) -> list[Answer] | None:
        """The items as relations in any order, where each of them names what it gives a value to."""
        items: list[Answer] = []
        for item in group.items:
            members = item.items if isinstance(item, Group) and item.kind == "list" else (item,)
            relations = [member for member in members if isinstance(member, Relation)]
            if len(relations) != len(members) or any(relation.operators != ("=",) for relation in relations):
                return None
            items.append(relations[0] if len(relations) == 1 else Group("list", tuple(relations)))
        names = [spelled(r.sides[0].node) for r in items if isinstance(r, Relation) and isinstance(r.sides[0], Value)]
        return items if len(items) > 1 and len(set(names)) == len(names) == len(items) else None

    def ratios(self, gold: Sequence[Value], answer: Sequence[Value]) -> bool | None:
        if len(gold) != len(answer):
            return False
        if _like_a_time(gold) and _like_a_time(answer):  # 4:30 and 2:15 are the same ratio, and not the same time
            return [item.node for item in gold] == [item.node for item in answer]
        first, other_first = gold[0].node, answer[0].node
        crossed = [
            self.values(times(first, other.node), times(other_first, one.node))
            for one, other in zip(gold[1:], answer[1:], strict=True)
        ]
        return False if False in crossed else None if None in crossed else True

    def quantities(self, gold: Value, answer: Value) -> bool | None:
        if gold.unit and answer.unit and gold.unit != answer.unit:
            return False
        verdict = self.values(gold.node, answer.node)
        if verdict is False and (gold.unit == "deg") != (answer.unit == "deg"):
            angle, plain = (gold, answer) if gold.unit == "deg" else (answer, gold)
            return not symbols(plain.node) and self.values(Node("degrees", (angle.node,)), plain.node)
        if verdict is False and (gold.unit == "%") != (answer.unit == "%"):
            percent, plain = (gold, answer) if gold.unit == "%" else (answer, gold)
            return self.values(over(percent.node, number(100)), plain.node)
        return verdict

    def values(self, gold: Node, answer: Node) -> bool | None:
        if gold == answer:
            return not _undefined(gold)
        if infinite(gold) or infinite(answer):
            return infinite(gold) == infinite(answer)
        try:
            verdict = exact.equal(exact.evaluate(gold), exact.evaluate(answer))
            if verdict is not None:
                return verdict
        except Undefined:
            return False
        except Beyond:
            pass
        if self.used_numeric >= MAX_NUMERIC or not numeric.available():
            return None
        self.used_numeric += 1
        try:
            return numeric.same(gold, answer)
        except Undefined:
            return False
        except (Beyond, ArithmeticError, ValueError, TypeError):
            self.refused = True
            return None

    def relation_and_other(self, relation: Relation, other: Answer) -> bool | None:
        if isinstance(other, (Combination, Condition, Named)) or (isinstance(other, Group) and other.kind == "pair"):
            verdict = same_set(relation, other)
            if verdict is not None:
                return verdict
        found = self.assigned(relation)
        return False if found is None else self.answers(found[1], other)

    def assigned(self, relation: Relation) -> tuple[Answer | None, Answer] | None:
        """What a chain of equations names and the value it gives, or None where it gives none or contradicts itself."""
        if not set(relation.operators) <= {"=", "approx", "in"}:
            return None
        name, values = None, list(relation.sides)
        exactly = [True, *(operator != "approx" for operator in relation.operators)]
        if is_name(values[0]):
            name, values, exactly = values[0], values[1:], exactly[1:]
        elif len(values) == 2 and is_name(values[1]):
            name, values, exactly = values[1], values[:1], [True]
        elif any(not _closed(value) for value in values):
            return None
        for value, claimed in zip(values[1:], exactly[1:], strict=True):
            if (self.answers(values[0], value) is not True) if claimed else not _near(values[0], value):
                return None
        return name, values[0]

    def relations(self, gold: Relation, answer: Relation) -> bool | None:
        one, other = self.assigned(gold), self.assigned(answer)
        if one and other and one[0] is not None and other[0] is not None:
            if one[0] == other[0] and (verdict := self.answers(one[1], other[1])) is not False:
                return verdict
        elif one and other:
            return self.answers(one[1], other[1])
        gold, answer = _forward(gold), _forward(answer)
        if gold.operators == answer.operators and self.in_order(gold.sides, answer.sides):
            return True
        if gold.operators == answer.operators == ("!=",) and self.in_any_order(gold.sides, answer.sides):
            return True
        names = [frozenset[str]().union(*map(_symbols, relation.sides)) for relation in (gold, answer)]
        if names[0] != names[1]:
            return False
        if len(names[0]) == 1 and (verdict := same_set(gold, answer)) is not None:
            return verdict
        return _proportional(gold, answer)


def _unwrapped(answer: Answer) -> Answer:
    while isinstance(answer, Group) and len(answer.items) == 1 and (answer.kind != "pair" or answer.brackets == "[]"):
        answer = answer.items[0]
    return answer


def _inequalities(items: Sequence[Answer]) -> bool:
    return all(isinstance(item, Relation) and not set(item.operators) & {"=", "in", "approx"} for item in items)


def _of_relations(*groups: Group) -> bool:
    return any(isinstance(item, (Relation, Combination)) for group in groups for item in group.items)


def _clock(one: Clock, other: Clock) -> bool:
    if one.half and other.half and one.half != other.half:
        return False
    return (one.hour % 12, one.minute, one.second) == (other.hour % 12, other.minute, other.second)


def _like_a_time(items: Sequence[Value]) -> bool:
    values = [item.node.value for item in items if _whole(item.node)]
    return len(items) == len(values) == 2 and 1 <= values[0] <= 24 and 10 <= values[1] < 60


def _whole(node: Node) -> bool:
    return node.head == "number" and node.value.denominator == 1


def _undefined(node: Node) -> bool:
    """Whether the same expression twice is still no answer: a division by zero, a difference of infinities."""
    try:
        exact.evaluate(node)
    except Undefined:
        return True
    except Beyond:
        pass
    return False


def _bare(group: Group, *, ordered: bool = False) -> Sequence[Answer]:
    """The items without the names that they are assigned to; `ordered` by those names."""
    items: list[tuple[str, Answer]] = []
    for item in group.items:
        if isinstance(item, Group) and item.kind == "list":
            inner = _bare(item, ordered=True)
            items.append(("", Group("pair", tuple(inner), "()")))
        elif isinstance(item, Relation) and item.operators == ("=",) and is_name(item.sides[0]):
            side = item.sides[0]
            items.append((spelled(side.node) if isinstance(side, Value) else "", item.sides[1]))
        else:
            items.append(("", item))
    if ordered and all(name for name, _ in items):
        items.sort(key=lambda entry: entry[0])
    return [item for _, item in items]


def is_name(answer: Answer) -> bool:
    """Whether this is what one gives a value to: x, a_n, AB, f(x), |AB|, (x, y), A:B; not 2x, x + y or x^2."""
    match answer:
        case Value(node, ""):
            return _is_name(node)
        case Group("pair", items, "()") | Ratio(items):
            return all(is_name(item) for item in items)
        case Choice(_, None) | Words():
            return True
        case _:
            return False


def _is_name(node: Node) -> bool:
    if node.head in ("symbol", "applied"):
        return True
    if node.head == "times" or (node.head == "function" and node.name not in ("root", "factorial", "binom")):
        return all(_is_name(child) for child in node.below)
    return False


def _near(one: Answer, other: Answer) -> bool:
    """Whether the second value is an approximation of the first."""
    if not isinstance(one, Value) or not isinstance(other, Value):
        return False
    try:
        exactly, roughly = numeric.value(one.node), numeric.value(other.node)
    except (Beyond, Undefined):
        return False
    return abs(exactly - roughly) <= abs(exactly) / 20


def _symbols(answer: Answer) -> frozenset[str]:
    match answer:
        case Value(node):
            return symbols(node)
        case Group(_, items) | Ratio(items):
            return frozenset[str]().union(*map(_symbols, items))
        case Choice(letter, None):
            return frozenset({letter})
        case _:
            return frozenset()


def _closed(answer: Answer) -> bool:
    return not isinstance(answer, (Words, Choice)) and not _symbols(answer)


def _forward(relation: Relation) -> Relation:
    """The same relation with the small side first."""
    if not any(operator in _REVERSED for operator in relation.operators):
        return relation
    operators = tuple(_REVERSED.get(operator, operator) for operator in reversed(relation.operators))
    return Relation(relation.sides[::-1], operators)


def _proportional(gold: Relation, answer: Relation) -> bool | None:
    """Whether two equations or inequalities are multiples of each other."""
    if gold.operators != answer.operators or len(gold.operators) != 1:
        return False
    try:
        one, other = _difference(gold), _difference(answer)
    except (Beyond, TypeError):
        return None
    except Undefined:
        return False
    if one.keys() != other.keys() or not one or not any(one):
        return False
    factors = {one[monomial] / other[monomial] for monomial in one}
    return len(factors) == 1 and (gold.operators[0] in ("=", "!=") or factors.pop() > 0)


def _difference(relation: Relation) -> Polynomial:
    nodes = [_as_node(side) for side in relation.sides]
    value = exact.evaluate(add(nodes[0], negative(nodes[1])))
    if len(value.bottom) > 1 and relation.operators[0] not in ("=", "!="):
        raise Beyond("an inequality with a denominator")
    if relation.operators[0] in ("=", "!="):
        return value.top
    return value.top


def _as_node(answer: Answer) -> Node:
    match answer:
        case Value(node, ""):
            return node
        case Choice(letter, None):
            return Node("symbol", name=letter)
        case _:
            raise Beyond("not an expression")
