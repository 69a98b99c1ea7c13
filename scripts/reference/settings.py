#!/usr/bin/env python3
"""Records what sentence-transformers makes of small checkpoints whose settings are changed one at a time: tests/data/references.

Run once, from the repository's root, with `pip install torch transformers==5.24.0 sentence-transformers==6.2.0 tokenizers==0.23.3`. The tests
read the files and need none of these."""

import copy
import json
import os
import pathlib
import shutil
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertConfig, BertModel, RobertaConfig, RobertaModel, XLMRobertaConfig, XLMRobertaModel

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "tests/data/references"
CORPUS = (ROOT / "src/import/texts/calibration.txt").read_text().splitlines()
SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
POSITIONS = 64

TEXTS = [
    "Hello World",
    "hello world",
    "na\u00efve Caf\u00e9",
    "\u6771\u4eac\u30bf\u30ef\u30fc",
    "The QUICK brown fox",
    " x  leading and trailing  ",
    "a\tb\nc",
    "[CLS] said [SEP] and [MASK]",
    "<s> </s> <mask> <unk>",
    "pad <pad> in a text <pad><pad> about models",
    "``quoted'' text, quickly",
    "\u0130stanbul \u00df \ufb01ne",
    "x" * 130,
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen",
    " ".join(f"word {i} of the house" for i in range(30)),
]


def wordpiece():
    """Both cases, accents and signs, so that each rule of BERT's changes ids."""
    characters = sorted({c for text in TEXTS for c in text if not c.isspace()} | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
    words = ["hello", "Hello", "world", "World", "the", "The", "quick", "QUICK", "brown", "fox", "house", "word", "of", "and", "naive", "cafe", "two", "three"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters + [f"##{c}" for c in characters] + words
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer, {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS, "cls_token": "[CLS]", "sep_token": "[SEP]",
                       "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}


def byte_level():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    return tokenizer, {"tokenizer_class": "RobertaTokenizer", "model_max_length": POSITIONS, "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
                       "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}


def unigram():
    tokenizer = Tokenizer.from_file(str(ROOT / "tests/data/tokenizers/unigram.json"))
    return tokenizer, {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": POSITIONS, "bos_token": "<s>", "eos_token": "</s>",
                       "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}


def loud(model):
    """Weights by which texts differ: the usual ones leave every vector almost the same."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.5 if "embed" in name else 0.3, generator=generator)
            elif "norm" in name.lower() and name.endswith("weight"):
                weight.uniform_(0.6, 1.4, generator=generator)
            else:
                weight.normal_(0, 0.1, generator=generator)
    return model.eval()


def base(name, made, configuration, architecture, **sizes):
    tokenizer, keys = made
    folder = TARGET / name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as raw:
        loud(architecture(configuration(vocab_size=tokenizer.get_vocab_size(), **SIZES, **sizes), add_pooling_layer=False)).save_pretrained(raw)
        tokenizer.save(f"{raw}/tokenizer.json")
        (pathlib.Path(raw) / "tokenizer_config.json").write_text(json.dumps(keys))
        transformer = modules.Transformer(raw)
        SentenceTransformer(modules=[transformer, modules.Pooling(16, pooling_mode="mean"), modules.Normalize()], device="cpu").save(str(folder))
    # As older releases saved them: the tokenizer's file is the whole of it.
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(keys, indent=1))
    (folder / "README.md").unlink()


def patched(value, patch):
    """JSON merge patch, with "(removed)" in place of null, which is a value here."""
    if not isinstance(patch, dict) or not isinstance(value, dict):
        return copy.deepcopy(patch)
    value = dict(value)
    for key, part in patch.items():
        if part == "(removed)":
            value.pop(key, None)
        else:
            value[key] = patched(value.get(key, {}), part)
    return value


def edit(folder, edits):
    for name, patch in edits.items():
        path = folder / name
        if patch == "(removed)":
            path.unlink()
            continue
        there = json.loads(path.read_text()) if path.exists() else {}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(patched(there, patch)))


TOKENIZER, CONFIG, SENTENCE, PIPELINE, POOLING = (
    "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json")
LEFT = {"truncation": {"direction": "Left", "max_length": 40, "strategy": "LongestFirst", "stride": 0}}
TOKEN = {"content": "quick", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
PROMPTS = {"query": "find: ", "document": "text: "}
METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}

# Name: base, edits, and whether queries and documents are recorded too.
CASES = {
    "as it is": ("bert", {}),
    "capitals are kept": ("bert", {CONFIG: {"do_lower_case": False}}),
    "capitals are kept in the file alone": ("bert", {TOKENIZER: {"normalizer": {"lowercase": False}}}),
    "accents are kept": ("bert", {CONFIG: {"strip_accents": False}}),
    "accents go and capitals stay": ("bert", {CONFIG: {"do_lower_case": False, "strip_accents": True}}),
    "chinese characters stay together": ("bert", {CONFIG: {"tokenize_chinese_chars": False}}),
    "control characters are kept in the file alone": ("bert", {TOKENIZER: {"normalizer": {"clean_text": False}}}),
    "the file's own normalizer is another": ("bert", {TOKENIZER: {"normalizer": {"type": "(removed)"}, "pre_tokenizer": {"type": "Whitespace"}}}),
    "longer words in the file alone": ("bert", {TOKENIZER: {"model": {"max_input_chars_per_word": 200}}}),
    "a class without rules": ("bert", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, TOKENIZER: {"normalizer": {"lowercase": True}}}),
    "a class without rules, the file's capitals": ("bert", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, TOKENIZER: {"normalizer": {"lowercase": False}}}),
    "a fast class": ("bert", {CONFIG: {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False}}),
    "another class of the same rules": ("bert", {CONFIG: {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False}}),
    "no tokenizer_config": ("bert", {CONFIG: "(removed)", TOKENIZER: {"normalizer": {"lowercase": False}}}),
    "the class in config.json": ("bert", {CONFIG: {"tokenizer_class": "(removed)", "do_lower_case": False}, "config.json": {"tokenizer_class": "BertTokenizer"}}),
    "nothing round a text in the file": ("bert", {TOKENIZER: {"post_processor": None}}),
    "another token at the end": ("bert", {CONFIG: {"sep_token": "[MASK]"}}),
    "another unknown token": ("bert", {CONFIG: {"unk_token": "[MASK]"}}),
    "a listed token": ("bert", {CONFIG: {"added_tokens_decoder": {"1": TOKEN}}}),
    "a listed token of a class without rules": ("bert", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"1": TOKEN}}}),
    "an extra special token": ("bert", {CONFIG: {"extra_special_tokens": ["quick"]}}),
    "additional special tokens": ("bert", {CONFIG: {"additional_special_tokens": ["fox", "house"]}}),
    "special_tokens_map": ("bert", {"special_tokens_map.json": {"additional_special_tokens": ["fox"], "mask_token": {"content": "[MASK]", "lstrip": True}}}),
    "added_tokens": ("bert", {"added_tokens.json": {"quick": 9}}),
    "a token that takes the space before it": ("bert", {TOKENIZER: {}, CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": {"__type": "AddedToken", "content": "fox", "lstrip": True}}}),
    "long texts lose their start": ("bert", {CONFIG: {"truncation_side": "left", "model_max_length": 12}}),
    "long texts lose their start by the file": ("bert", {TOKENIZER: LEFT, CONFIG: {"model_max_length": 12}}),
    "padding before a text": ("bert", {CONFIG: {"padding_side": "left"}}),
    "the longest text by the tokenizer": ("bert", {CONFIG: {"model_max_length": 12}}),
    "the longest text by its old name": ("bert", {CONFIG: {"model_max_length": "(removed)", "max_len": 12}}),
    "the longest text in the file is not read": ("bert", {CONFIG: {"model_max_length": "(removed)"}, TOKENIZER: {"truncation": LEFT["truncation"] | {"direction": "Right", "max_length": 12}}}),
    "max_seq_length": ("bert", {SENTENCE: {"max_seq_length": 10}}),
    "max_seq_length over the tokenizer's": ("bert", {SENTENCE: {"max_seq_length": 30}, CONFIG: {"model_max_length": 12}}),
    "processing_kwargs": ("bert", {SENTENCE: {"processing_kwargs": {"text": {"max_length": 9, "truncation": True}}}}),
    "processing_kwargs over queries": ("bert", {SENTENCE: {"query_length": 6, "processing_kwargs": {"text": {"max_length": 9}}}, PIPELINE: {"prompts": PROMPTS}}),
    "query_length and document_length": ("bert", {SENTENCE: {"query_length": 7, "document_length": 11}, PIPELINE: {"prompts": PROMPTS}}),
    "query_length without prompts": ("bert", {SENTENCE: {"query_length": 7}}),
    "lowercased before the tokenizer": ("bert", {SENTENCE: {"do_lower_case": True}, CONFIG: {"do_lower_case": False}}),
    "arguments of the tokenizer": ("bert", {SENTENCE: {"processor_kwargs": {"do_lower_case": False, "model_max_length": 12}}}),
    "cls pooling": ("bert", {POOLING: {"pooling_mode": "cls"}}),
    "last token's pooling": ("bert", {POOLING: {"pooling_mode": "lasttoken"}}),
    "no pooling mode is true": ("bert", {POOLING: {"pooling_mode": "(removed)", "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}}),
    "two ways of naming the mode": ("bert", {POOLING: {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}}),
    "prompts that are null": ("bert", {PIPELINE: {"prompts": {"query": None, "document": None}}}),
    "a default prompt": ("bert", {PIPELINE: {"prompts": PROMPTS | {"s2s": "like: "}, "default_prompt_name": "s2s"}}),
    "a default prompt that is empty": ("bert", {PIPELINE: {"default_prompt_name": "query"}}),
    "truncate_dim": ("bert", {PIPELINE: {"truncate_dim": 6}}),
    "truncate_dim beyond the width": ("bert", {PIPELINE: {"truncate_dim": 600}}),
    "similarity": ("bert", {PIPELINE: {"similarity_fn_name": "dot"}}),
    "byte level": ("roberta", {}),
    "a space before the first word": ("roberta", {CONFIG: {"add_prefix_space": True}}),
    "a space before the first word in the file alone": ("roberta", {TOKENIZER: {"pre_tokenizer": {"add_prefix_space": True}}}),
    "a space before the first word, a class without rules": ("roberta", {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"}, TOKENIZER: {"pre_tokenizer": {"add_prefix_space": True}}}),
    "a normalizer that the class has not": ("roberta", {TOKENIZER: {"normalizer": {"type": "Lowercase"}}}),
    "bos and eos are not read": ("roberta", {CONFIG: {"add_bos_token": True, "add_eos_token": False}}),
    "only the first token in the file": ("roberta", {TOKENIZER: {"post_processor": "(removed)"}}),
    "unigram": ("xlmr", {}),
    "no space before a word": ("xlmr", {CONFIG: {"add_prefix_space": False}}),
    "words are not split at white space in the file": ("xlmr", {TOKENIZER: {"pre_tokenizer": METASPACE | {"pretokenizers": "(removed)"}}}),
    "no table of characters": ("xlmr", {TOKENIZER: {"normalizer": None}}),
    "unigram, lowercased before": ("xlmr", {SENTENCE: {"do_lower_case": True}}),
    "unigram, no class": ("xlmr", {CONFIG: {"tokenizer_class": "(removed)"}}),
    "unigram, other tokens round a text": ("xlmr", {CONFIG: {"bos_token": "<mask>"}}),
}


def recorded(name, edits):
    with tempfile.TemporaryDirectory() as copied:
        folder = pathlib.Path(copied) / "checkpoint"
        shutil.copytree(TARGET / name, folder)
        edit(folder, edits)
        model = SentenceTransformer(str(folder), device="cpu")
        vectors = lambda encode: [[round(float(x), 8) for x in encode([text])[0]] for text in TEXTS]
        case = {"base": name, "edits": edits, "max_tokens": model.max_seq_length, "vectors": vectors(model.encode)}
        if any(model.prompts.values()) or {"query_length", "document_length"} & set(edits.get(SENTENCE, {})):
            case |= {"query": vectors(model.encode_query), "document": vectors(model.encode_document)}
        return case


def main():
    torch.set_num_threads(1)
    base("bert", wordpiece(), BertConfig, BertModel, max_position_embeddings=POSITIONS)
    roberta = dict(max_position_embeddings=POSITIONS + 2, type_vocab_size=1, pad_token_id=1)
    base("roberta", byte_level(), RobertaConfig, RobertaModel, **roberta)
    base("xlmr", unigram(), XLMRobertaConfig, XLMRobertaModel, **roberta)
    cases = {}
    for name, (of, edits) in CASES.items():
        try:
            cases[name] = recorded(of, edits)
        except Exception as error:
            print(f"left out: {name}: {type(error).__name__}: {str(error)[:200]}")
    (TARGET / "settings.json").write_text(json.dumps({"texts": TEXTS, "cases": cases}, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
