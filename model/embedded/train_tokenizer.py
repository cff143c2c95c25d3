"""Train the embedded byte-level BPE. Run from the repository root:

    python -m model.embedded.train_tokenizer [OUTPUT.json]

The text is made here from the word lists and sentences of `words.json`, which are ours: captions, questions
with answers, edits, short reasoning and the templates' own words. The same `tokenizers` version gives the
same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.text_tokenizer import EMBEDDED_FILE
from model.vocabulary import BEGIN_IMAGE_TOKENS, END_IMAGE, EOS, MASK, ROLE_END, START_IMAGE, size_token

WORDS_FILE = Path(__file__).parent / "words.json"
TEXT_IDS = 3072
SIZE_TOKENS = 128  # grid sides up to 2,048 pixels
SENTENCES = 20_000
SEED = 20260422

PATTERNS = (
    "A {adjectives} {colours} {things} {relations} the {things}.",
    "A {people} {verbs_ing} {relations} a {adjectives} {things} in the {places}.",
    "Two {colours} {animals}s {verbs_ing} near the {things}; {numbers} {things}s in the {places}.",
    "{Numbers} {things}s and a {colours} {shapes} {relations} a {adjectives} {things}.",
    "The {styles} shows a {adjectives} {animals} {relations} the {things}.",
    "What colour is the {things}? It is {colours}.",
    "How many {animals}s are there? There are {numbers} {animals}s.",
    "Where is the {adjectives} {things}? The {things} is {relations} the {things}.",
    "What is the {people} {verbs_ing}? The {people} is {verbs_ing} {relations} the {things}.",
    "{Edit_verbs} the {colours} {things} and {edit_verbs} the {places}.",
    "{Edit_verbs} the {animals} {relations} the {things} to {colours}.",
    "{Reasoning}, the {abstract} of the {abstract} is {numbers}, {reasoning} the {abstract} is {adjectives}.",
    "{Reasoning} we see that {function_words} {abstract} {function_words} {things} must be {adjectives}.",
    "The {people} has {numbers} {things}s and gives {numbers} to the {people}. How many {things}s are left?",
    "A {styles} of a {people} with a {adjectives} {things}, {adjectives} light, {colours} {places}.",
    "The {abstract} of this {things} {function_words} {function_words} {adjectives} {abstract}.",
    "{Common} {function_words} {common} {function_words} {common}, {common} {function_words} {common}.",
    "{function_words} {common}{endings} {function_words} {common}{endings} {common} {common}{endings}",
    "a {shapes} {relations} a {colours} {shapes}, {adjectives} and {adjectives}",
)


def special_tokens() -> list[str]:
    """The released layout's special tokens that our sequences use, by their names, in a fixed order."""
    named = [EOS, MASK, START_IMAGE, END_IMAGE, BEGIN_IMAGE_TOKENS, ROLE_END]
    return named + [size_token(n) for n in range(1, SIZE_TOKENS + 1)]


def sample_text() -> Iterator[str]:
    """Lines of English, the same on every call."""
    lists = json.loads(WORDS_FILE.read_text("utf-8"))
    fixed = lists.pop("sentences")
    words = {name: [word.replace(".", " ") for word in text.split()] for name, text in lists.items()}
    rng = np.random.Generator(np.random.PCG64(SEED))

    def pick(name: str) -> str:
        choices = words[name.lower()]
        word: str = choices[int(rng.integers(len(choices)))]
        return word.capitalize() if name[0].isupper() else word

    for index in range(SENTENCES):
        pieces = PATTERNS[index % len(PATTERNS)].split("{")
        yield pieces[0] + "".join(pick(name) + rest for name, rest in (piece.split("}") for piece in pieces[1:]))
        if index % 10 == 0:
            yield fixed[(index // 10) % len(fixed)]


def train() -> str:
    """Text of the trained `tokenizer.json`."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = ByteLevelDecoder()
    special = special_tokens()
    trainer = BpeTrainer(
        vocab_size=TEXT_IDS - len(special),
        min_frequency=2,
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_text(), trainer)
    # After the words, as in the released layout.
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    if tokenizer.get_vocab_size() != TEXT_IDS:
        raise RuntimeError(f"the sample text gave {tokenizer.get_vocab_size()} ids instead of {TEXT_IDS}")
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=0) + "\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else EMBEDDED_FILE
    target.write_text(train(), "utf-8")
    print(f"{target}: {TEXT_IDS} ids, {target.stat().st_size} bytes")
