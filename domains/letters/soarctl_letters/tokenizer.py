"""The tokenizer: one token for each operation, mark and letter, and text that comes back as it went in."""

import re
from string import ascii_uppercase

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from soarctl_letters.operations import OPERATIONS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"

# A space belongs to the token after it, so decoding is joining. The first letter of a word is then another
# token than the same letter inside a word, which also tells the model where words begin. There is no BOS:
# every document starts with one of the two tasks.
TASKS = ("solve:", "ask:")
PIECES = (
    *TASKS,
    " |",
    " =",
    *(f" {operation}" for operation in OPERATIONS),
    *(f" {letter}" for letter in ascii_uppercase),
    *ascii_uppercase,
)
TOKENS = (PAD, EOS, UNKNOWN, *PIECES)
PAD_ID, EOS_ID = TOKENS.index(PAD), TOKENS.index(EOS)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the shipped model. `decode` and `encode` are inverse on every sequence of `PIECES`."""
    vocabulary = {token: i for i, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    # No piece is the beginning of another one, so the order of the alternatives does not matter.
    pattern = Regex("|".join(re.escape(piece) for piece in PIECES))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
