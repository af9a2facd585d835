"""From the text of a prompt to the tokens that a model reads."""

from transformers import PreTrainedTokenizerBase

from soarctl.api import ModelError


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, chat_template: bool) -> tuple[int, ...]:
    """The tokens of a prompt, as one turn of the model's chat template where that is asked for.

    Raises:
        ModelError: there are none.
    """
    if chat_template:
        turn = [{"role": "user", "content": text}]
        text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    # A chat template writes its own special tokens.
    ids = tokenizer.encode(text, add_special_tokens=not chat_template)
    if not ids:
        raise ModelError(f"the tokenizer makes no token of the prompt {text!r}")
    return tuple(ids)
