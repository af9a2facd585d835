"""The final answer in a text: the last box, or else what the text calls its answer."""

import re

MAX_TEXT = 200_000
_OPEN = re.compile(r"\\(?:boxed|fbox|framebox)\s*(\{)?")
_BOXES = ("\\boxed", "\\fbox", "\\framebox")
_BETWEEN = re.compile(
    r"(?:\s|\\[,;:! ()\[\]]|\\quad|\\qquad|\$|[,;.&]|\\text\s*\{\s*(?:,|and|or)?\s*\}|\band\b|\bor\b"
    r"|[A-Za-z](?:_\{?\w{1,4}\}?)?\s*=)*"
)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_CALLED = re.compile(
    r"(?:answer|solution)s?\**\s*(?:is|are|:|=|to the [a-z ]{1,40}is)\**\s*:?\s*",
    re.IGNORECASE,
)
_SPAN = re.compile(
    r"(?<!\\)\$\$((?:[^$\\]|\\.){1,2000})\$\$|(?<!\\)\$((?:[^$\\]|\\.){1,2000})\$|\\\((.{1,2000}?)\\\)|\\\[(.{1,2000}?)\\\]",
    re.DOTALL,
)
_SERIES = re.compile(r"\$[^$]{1,200}\$(?:(?:,|\s|\band\b|\bor\b){1,9}\$[^$]{1,200}\$){1,20}")
_REASON = re.compile(r",?\s+(?:because|since|which|as|so that|where)\s")
_VERB = re.compile(r"\s(?:is|are|equals|be)\s")
_SENTENCE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}\s+\S+\s+[A-Za-z]{2,}")
_DELIMITER = re.compile(r"(?<!\\)(?:\$|\\[(\[])")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_NUMBER = re.compile(r"(?<![\w.])[-−]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")
_THOUGHT = "</think>"


def boxed(text: str, *, alone: bool = False) -> str | None:
    """What the last box holds, or None where it is missing or not closed.

    Args:
        alone: the last box only; else boxes that stand side by side with it make a list.
    """
    if "\\boxed" not in text and "\\fbox" not in text and "\\framebox" not in text:
        return None
    last = max(text.rfind(box) for box in _BOXES)
    content, end = _content(text, last)
    if content is None:
        return None
    if alone:
        return content
    # Boxes that stand side by side belong together: \boxed{3} and \boxed{5}.
    parts, start = [content], last
    while len(parts) < 32:
        before = max(text.rfind(box, 0, start) for box in _BOXES)
        if before < 0 or start - before > 2000:
            break
        earlier, end = _content(text, before)
        if earlier is None or end > start or not _BETWEEN.fullmatch(text, end, start):
            break
        parts.append(earlier)
        start = before
    return content if len(parts) == 1 else ", ".join(reversed(parts))


def _content(text: str, at: int) -> tuple[str | None, int]:
    match = _OPEN.match(text, at)
    if match is None:
        return None, at
    if match[1] is None:  # \boxed 5
        word = re.compile(r"[^\s$\\{}]{1,40}").match(text, match.end())
        return (word[0], word.end()) if word else (None, at)
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text[match.end() - 1 : match.end() + 20_000], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            end = match.end() - 1 + brace.end()
            return text[match.end() : end - 1], end
    return None, at


def final_answer(text: str) -> str | None:
    """The answer that a text ends with, boxed or not; None where there is none."""
    if len(text) > MAX_TEXT:
        text = text[-MAX_TEXT:]
    if _THOUGHT in text:
        after = text.rpartition(_THOUGHT)[2]
        text = after if after.strip() else text
    if "\\boxed" in text or "\\fbox" in text or "\\framebox" in text:
        return boxed(text)
    if "\n#### " in f"\n{text}":
        return f"\n{text}".rpartition("\n#### ")[2].partition("\n")[0].strip()
    if "</answer>" in text.lower():
        tagged = _TAGGED.findall(text)
        if tagged:
            return tagged[-1].strip()
    ends = [called.end() for called in _CALLED.finditer(text)]
    if ends and (found := _stated(text[ends[-1] : ends[-1] + 2000])):
        return found
    return _last(text)


def _stated(text: str) -> str | None:
    """What follows "the answer is": a formula, or the end of the sentence."""
    if series := _SERIES.match(text):
        return series[0].replace("$", "")
    if span := _SPAN.match(text):
        return _whole(span)
    sentence = re.split(r"\.(?:\s|$)|\n", text, maxsplit=1)[0].strip().strip("*").strip()
    sentence = _VERB.split(_REASON.split(sentence)[0])[-1].strip()
    return (
        _whole(_SPAN.fullmatch(sentence)) or (sentence if _is_bare(sentence) else _last(sentence) or sentence) or None
    )


def _whole(span: re.Match[str] | None) -> str:
    return "" if span is None else next(group for group in span.groups() if group is not None)


def _is_bare(text: str) -> bool:
    """Whether a short text is an answer itself, not a sentence around one."""
    return len(text) < 120 and not _DELIMITER.search(text) and not _SENTENCE.search(text)


def _last(text: str) -> str | None:
    """The last formula of a text, or else its last number."""
    text = text[-20_000:]
    spans = list(_SPAN.finditer(text))
    if spans:
        content = _whole(spans[-1])
        # Of a chain of steps the last one counts; a single equation is an answer.
        return (
            content.rpartition("=")[2].strip() if len(_EQUALS.findall(content)) > 1 and "," not in content else content
        )
    if _is_bare(text.strip()):
        return text.strip() or None
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None
