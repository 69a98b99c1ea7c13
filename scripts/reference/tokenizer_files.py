#!/usr/bin/env python3
"""Makes the tokenizers of tests/data/tokenizers: a byte-level BPE as Qwen's and a Unigram as XLM-RoBERTa's, trained on this repository's texts.

Run once, from the repository's root, with `pip install tokenizers==0.23.3 sentencepiece==0.2.3 protobuf`. The tests read the files and need none
of these."""

import json
import pathlib
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "tests/data/tokenizers"
CORPUS = [ROOT / "src/import/texts" / name for name in ("calibration.txt", "probe.txt")]
# Of Qwen2 and Qwen3, from their tokenizer.json.
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus():
    return [line for path in CORPUS for line in path.read_text().splitlines() if line.strip()]


def byte_level():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    end = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), end])
    return tokenizer


def rules():
    """sentencepiece's `nmt_nfkc`, without Hangul and the compatibility forms of Chinese and Arabic, which are three quarters of its table."""
    spaces = [0x09, 0x0A, 0x0C, 0x0D, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD]
    removed = [*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
    left_out = [range(0x1100, 0x1200), range(0xAC00, 0xD800), range(0xF900, 0xFB00), range(0xFB50, 0xFE00), range(0xFE70, 0xFEFF)]
    table = {}
    for code in range(0xA0, 0xFFFE):
        if 0xD800 <= code < 0xE000 or any(code in part for part in left_out):
            continue
        composed = unicodedata.normalize("NFKC", chr(code))
        if composed != chr(code):
            table[chr(code)] = composed
        decomposed = unicodedata.normalize("NFD", composed)
        if decomposed != composed:
            table[decomposed] = composed
    table |= {chr(code): " " for code in spaces} | {chr(code): "" for code in removed}
    points = lambda text: " ".join(f"{ord(character):X}" for character in text)
    return "".join(f"{points(source)}\t{points(target)}\n" for source, target in sorted(table.items()))


def unigram():
    """Built as transformers' converter builds XLM-RoBERTa's: sentencepiece's table of characters is the normalizer."""
    with tempfile.TemporaryDirectory() as directory:
        prefix, table = f"{directory}/trained", pathlib.Path(directory) / "rules.tsv"
        table.write_text(rules())
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()), model_prefix=prefix, vocab_size=1000, model_type="unigram",
            normalization_rule_tsv=str(table), character_coverage=0.9995, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        )
        trained = sentencepiece_model_pb2.ModelProto()
        trained.ParseFromString(pathlib.Path(f"{prefix}.model").read_bytes())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    # Scores of six digits keep the file small.
    pieces = [(piece.piece, round(piece.score, 5)) for piece in trained.pieces[3:]]
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in special] + pieces + [("<mask>", 0.0)], unk_id=3))
    table = normalizers.Precompiled(trained.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True, lstrip=token == "<mask>") for token in [*special, "<mask>"]]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


def main():
    TARGET.mkdir(parents=True, exist_ok=True)
    for name, tokenizer in (("byte_level", byte_level()), ("unigram", unigram())):
        text = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
        (TARGET / f"{name}.json").write_text(text + "\n")
        print(name, len(text), "characters,", tokenizer.get_vocab_size(), "tokens")


if __name__ == "__main__":
    main()
