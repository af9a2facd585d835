"""Text and tokens of the letters domain, one the inverse of the other."""

import itertools
from pathlib import Path

import soarctl_letters
from soarctl_letters.corpus import documents
from soarctl_letters.tokenizer import PIECES, TOKENS, build_tokenizer
from transformers import AutoTokenizer

MODEL = Path(soarctl_letters.__file__).parent / "model"


def test_any_two_tokens_decode_to_text_that_encodes_to_them() -> None:
    tokenizer = build_tokenizer()
    pairs = list(itertools.product(PIECES, repeat=2))
    ids = [[TOKENS.index(piece) for piece in pair] for pair in pairs]
    assert tokenizer.batch_decode(ids) == ["".join(pair) for pair in pairs]
    assert tokenizer(["".join(pair) for pair in pairs])["input_ids"] == ids


def test_every_document_is_read_without_an_unknown_token() -> None:
    tokenizer = build_tokenizer()
    for document in itertools.islice(documents(0), 1000):
        ids = tokenizer(document.prompt + document.completion)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == document.prompt + document.completion
        assert ids == tokenizer(document.prompt)["input_ids"] + tokenizer(document.completion)["input_ids"]


def test_the_shipped_tokenizer_is_the_one_that_is_built_here() -> None:
    shipped = AutoTokenizer.from_pretrained(MODEL)
    assert shipped.get_vocab() == {token: i for i, token in enumerate(TOKENS)}
    text = "solve: CAT | reverse up swap = TAC UBD UDB<eos>"
    assert shipped(text)["input_ids"] == build_tokenizer()(text)["input_ids"]
    assert shipped.decode(shipped(text)["input_ids"]) == text


def test_the_shipped_model_takes_less_than_1_2_megabytes() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 1.2e6
