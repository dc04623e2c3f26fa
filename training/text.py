"""The tokenizer and the text encoder.

The encoder learns to tell styles and moods apart, with words among the nouns that it never sees twice, and is frozen
then: a prompt's embedding says how the picture should look and little else. Architecture: CLIP's text model
(Radford et al. 2021), tiny.
"""

import random
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training import checkpoint
from training.plan import Plan
from training.prompts import EMOJI_NAMES, prompt
from training.stage import Budget
from training.words import ADJECTIVES, MOOD_WORDS, MOODS, NOUNS, STYLE_WORDS, STYLES

__all__ = ["MAX_TOKENS", "Prompts", "load_text", "train_text"]

MAX_TOKENS: Final = 32
VOCABULARY: Final = 2560
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
SAVE_EVERY: Final = 100  # steps


def train_text(plan: Plan) -> None:
    """Makes tokenizer/ and text_encoder/ in the run's folder; a test's accuracies are in text.json."""
    if (plan.folder / "text.json").exists():
        return
    torch.manual_seed(plan.seed)
    if not (plan.folder / "tokenizer" / "tokenizer.json").exists():
        _train_tokenizer(plan)
    prompts = Prompts(plan, 12 if plan.small else 750)
    width = plan.text_width
    encoder = CLIPTextModel(_config(plan))
    heads = torch.nn.Linear(width, len(STYLES) + len(MOODS))
    torch.nn.init.normal_(encoder.get_input_embeddings().weight, std=0.1)
    encoder, heads = encoder.to(plan.device), heads.to(plan.device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, weight_decay=0.01)
    file = plan.folder / "state" / "text.pt"
    budget = Budget("text encoder", plan.seconds_of("text"))
    kept = checkpoint.load(file, plan.device)
    if kept:
        encoder.load_state_dict(kept["encoder"])
        heads.load_state_dict(kept["heads"])
        optimizer.load_state_dict(kept["optimizer"])
        budget.spent_s = kept["spent_s"]
    batch = 512 if plan.cuda else 96
    for step, share in enumerate(budget.turns(), start=1):
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * max(0.02, 1 - share)
        ids, style, mood = prompts.batch(batch)
        logits = heads(encoder(prompts.damaged(ids))[0].mean(1))
        loss = F.cross_entropy(logits[:, : len(STYLES)], style) + F.cross_entropy(logits[:, len(STYLES) :], mood)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        budget.words = f"step {step}, loss {float(loss.detach()):.3f}" if step % 20 == 0 else budget.words
        if step % SAVE_EVERY == 0:
            state = {"encoder": encoder.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(file, state | {"spent_s": budget.used_s})
    encoder.eval().save_pretrained(plan.folder / "text_encoder")
    checkpoint.write_json(plan.folder / "text.json", _accuracy(plan, encoder, heads))


class Prompts:
    """`each` prompts for every style and mood, made beforehand, as tokens."""

    def __init__(self, plan: Plan, each: int, seed: int = 1) -> None:
        dice = random.Random(plan.seed * 1000 + seed)
        tokenizer = CLIPTokenizer.from_pretrained(plan.folder / "tokenizer")
        self.size = len(tokenizer)
        texts = [prompt(style, mood, dice) for style in STYLES for mood in MOODS for _ in range(each)]
        self._ids = tokens(tokenizer, texts).view(len(STYLES), len(MOODS), each, MAX_TOKENS).to(plan.device)
        self.nothing = tokens(tokenizer, [""])[0].to(plan.device)

    def of(self, style: torch.Tensor, mood: torch.Tensor) -> torch.Tensor:
        """Tokens [n, MAX_TOKENS] of a prompt for each pair of numbers [n]."""
        which = torch.randint(self._ids.shape[2], style.shape, device=style.device)
        return self._ids[style, mood, which]

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens [size, MAX_TOKENS], the style's and the mood's number [size]; four of ten have no mood."""
        device = self._ids.device
        style = torch.randint(len(STYLES), (size,), device=device)
        mood = torch.randint(len(MOODS), (size,), device=device) * (torch.rand(size, device=device) > 0.35)
        return self.of(style, mood), style, mood

    def damaged(self, ids: torch.Tensor) -> torch.Tensor:
        """Some tokens replaced by any, so that no single one decides."""
        hit = (torch.rand(ids.shape, device=ids.device) < 0.04) & (ids > 1)
        return torch.where(hit, torch.randint(2, self.size, ids.shape, device=ids.device), ids)


def tokens(tokenizer: Any, texts: list[str]) -> torch.Tensor:
    found = tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return found.input_ids


def load_text(folder: Path, device: str) -> tuple[Any, Any]:
    """The frozen text encoder and its tokenizer."""
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").eval().requires_grad_(False).to(device)
    return encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer")


def _config(plan: Plan) -> Any:
    return CLIPTextConfig(
        vocab_size=len(CLIPTokenizer.from_pretrained(plan.folder / "tokenizer")),
        hidden_size=plan.text_width,
        intermediate_size=plan.text_width * 3,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=plan.text_width,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _accuracy(plan: Plan, encoder: Any, heads: Any) -> dict[str, float]:
    """On prompts that were not trained on."""
    ids, style, mood = Prompts(plan, 12, seed=2).batch(2000)
    with torch.no_grad():
        logits = heads(encoder(ids)[0].mean(1))
    right_style = logits[:, : len(STYLES)].argmax(1) == style
    right_mood = logits[:, len(STYLES) :].argmax(1) == mood
    return {"style": float(right_style.float().mean()), "mood": float(right_mood.float().mean())}


def _train_tokenizer(plan: Plan) -> None:
    """Byte-level BPE (Sennrich et al. 2016) with CLIP's rules, so that CLIPTokenizer reads it."""
    dice = random.Random(plan.seed)
    corpus = [
        prompt(dice.choice(STYLES), dice.choice(MOODS), dice).lower() for _ in range(2_000 if plan.small else 40_000)
    ]
    corpus += [word for word in (*NOUNS, *ADJECTIVES) for _ in range(20)]
    corpus += [text for words in (*STYLE_WORDS.values(), *MOOD_WORDS.values()) for text in words for _ in range(60)]
    corpus += [name for name in EMOJI_NAMES for _ in range(3)]
    bpe = Tokenizer(models.BPE(unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(WORDS), "removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.post_processor = processors.RobertaProcessing((END, 1), (START, 0), add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    raw = plan.folder / "state" / "bpe.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    bpe.save(str(raw))
    model = checkpoint.read_json(raw)["model"]
    tokenizer = CLIPTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(plan.folder / "tokenizer")
