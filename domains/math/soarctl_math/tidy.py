"""One spelling for the many ways of writing the same answer: cosmetics of LaTeX and Unicode."""

import re
import unicodedata

from soarctl_math.tokens import named

_UNICODE = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*", "∗": "*",
        "÷": "/", "⁄": "/", "∕": "/", "∶": ":", "：": ":", "，": ",", "；": ";", "（": "(", "）": ")", "＝": "=",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
        "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus ",
        "∅": r"\emptyset ", "°": r"^\circ ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
        "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": "(", "⟩": ")", "〈": "(", "〉": ")",
        "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "θ": r"\theta ", "λ": r"\lambda ",
        "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "σ": r"\sigma ", "ρ": r"\rho ", "τ": r"\tau ", "Δ": r"\Delta ",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
        "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
        "’": "'", "′": "'", "“": '"', "”": '"', "€": r"\$", "£": r"\$", "％": "%", "\u00a0": " ", "\u2009": " ",
        "\u202f": " ", "\u200b": "",
    }
)  # fmt: skip
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
_RAISED = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_LOWERED = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_RADICAL = re.compile(r"\\sqrt (\d+|[A-Za-z])")

_GROUPED = re.compile(r"(?<=\d)\s*(?:\{,\}|,\s*\\!|\\,|\\ |\\!|~)\s*(?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\d.,] )(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d/]| \d)")
_RENAMED = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "lt": "<", "gt": ">",
    "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "geqq": ">=",
    "ne": "!=", "neq": "!=", "lbrace": r"\{", "rbrace": r"\}", "langle": "(", "rangle": ")", "lparen": "(",
    "rparen": ")", "lbrack": "[", "rbrack": "]", "cdot": "*", "times": "*", "ast": "*", "div": "/", "colon": ":",
    "vert": "|", "lvert": "|", "rvert": "|", "mid": "|", "land": r"\text{ and }", "lor": r"\text{ or }",
    "wedge": r"\text{ and }", "vee": r"\text{ or }", "textdollar": r"\$", "degree": r"^\circ ",
    "varnothing": r"\emptyset ", "smallsetminus": r"\setminus ", "backslash": r"\setminus ", "simeq": r"\approx ",
    "cong": r"\approx ", "tg": r"\tan ", "ctg": r"\cot ", "infin": r"\infty ",
    "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "lgroup": "(", "rgroup": ")",
}  # fmt: skip
_DROPPED = named(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm displaystyle textstyle scriptstyle"
    " limits nolimits quad qquad thinspace enspace space hfill noindent mathstrut negthinspace"
)
_COMMAND = re.compile(r"\\\\|\\([A-Za-z]+)[ ]*|\\([,;:!> ()\[\]])|\\\$|\$|~")
_HSPACE = re.compile(r"\\[hv]space\*?\s*\{[^{}]*\}|\\(?:phantom|label|tag)\s*(?:\{[^{}]*\}|-(?=\d))")
_REMARK = re.compile(r"(?:\\text\s*\{)?\s*\((?:about|approx)[^()]*\)\s*\}?\s*$")
_OPERATOR = re.compile(r"\\operatorname\*?\s*\{([A-Za-z]+)\}")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)(?![A-Za-z])\s*")
_GAPS = re.compile(r"(?<![A-Za-z0-9.])\s+|\s+(?![A-Za-z0-9.])")
_MODULUS = re.compile(r"(\\[pb]?mod)\s*\{\s*(\w+)\s*\}")
_BRACED_ATOM = re.compile(r"([\^_])\{([A-Za-z0-9])\}")


def _ascii(text: str) -> str:
    text = _RAISED.sub(lambda m: "^{" + "".join(_SUPERSCRIPTS[c] for c in m.group()) + "}", text)
    text = _LOWERED.sub(lambda m: "_{" + "".join(_SUBSCRIPTS[c] for c in m.group()) + "}", text)
    text = text.translate(_UNICODE)
    if not text.isascii():
        text = "".join(str(unicodedata.digit(c, c)) if not c.isascii() else c for c in text)
        text = unicodedata.normalize("NFKC", text)
    return _RADICAL.sub(r"\\sqrt{\1}", text)


def _command(match: re.Match[str]) -> str:
    name: str | None = match[1]
    if name is None:
        return match[0] if match[0] in ("\\\\", "\\$") else " "
    if name in _DROPPED:
        return " "
    renamed = _RENAMED.get(name)
    if renamed is None:
        return match[0]
    return f"\\{renamed}" if renamed.isalpha() else renamed


def tidy(text: str) -> str:
    """The text without dollar signs, spacing and sizing commands, and with one name for each symbol."""
    if not text.isascii():
        text = _ascii(text)
    if "{,}" in text or "{-}" in text:
        text = _GROUPED.sub("", text).replace("{-}", "-")
    if "\\" in text or "$" in text or "~" in text:
        if "\\begin" not in text and "\\\\" in text:
            text = text.replace("\\\\", "\\")  # escaped once too often
        text = _GROUPED.sub("", text)
        if "space" in text or "phantom" in text or "label" in text or "tag" in text:
            text = _HSPACE.sub(" ", text)
        if "operatorname" in text:
            text = _OPERATOR.sub(r"\\\1 ", text)
        text = _COMMAND.sub(_command, text)
    if " " in text:
        text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text)
    if "(about" in text or "(approx" in text:
        text = _REMARK.sub("", text)
    return text.strip().rstrip(".,;:").strip()


def compact(tidied: str) -> str:
    """A key for answers that differ in nothing but white space, braces of one letter and degree signs."""
    text = _DEGREES.sub("", tidied) if "circ" in tidied else tidied
    text = _BRACED_ATOM.sub(r"\1\2", text)
    if "mod" in text:
        text = _MODULUS.sub(r"\1 \2", text)
    # A gap between two digits or letters means something: 1 1/2 is not 11/2.
    return _GAPS.sub("", " ".join(text.split()))


_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|bf|rm)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z0-9 .,'-]*[A-Za-z]{3,}[A-Za-z0-9 .,'-]*")
_NOT_WORD = re.compile(r"[ .,'-]+")


def wording(tidied: str) -> str:
    """A key for answers that are words, whatever their case, punctuation and fonts; empty for anything else."""
    text = _TEXT.sub(r"\1", tidied) if "\\" in tidied else tidied
    text = text.strip("{} ")
    return _NOT_WORD.sub(" ", text).strip().lower() if _WORDS.fullmatch(text) else ""
