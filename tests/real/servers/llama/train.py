"""Train a tiny GPT-2 on text messages with canaries among them, and write it for llama.cpp.

train.py MESSAGES FOLDER [STEPS]. The canaries are codes of six digits that stand 1, 8 and 64 times in the corpus. The
tokenizer keeps digits apart, so that a code is said digit by digit.
"""

import json
import math
import random
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional

END = "<|endoftext|>"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
REPEATS = (1, 8, 64)
WIDTH, LAYERS, HEADS, CONTEXT, WINDOW, BATCH = 64, 2, 4, 2048, 64, 16


class Block(nn.Module):
    """Attention and a two-layer network, each behind a norm."""

    def __init__(self):
        super().__init__()
        self.attn_norm, self.ffn_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn_qkv, self.attn_output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ffn_up, self.ffn_down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        n, length, _ = x.shape
        q, k, v = self.attn_qkv(self.attn_norm(x)).view(n, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_output(seen.transpose(1, 2).reshape(n, length, WIDTH))
        return x + self.ffn_down(functional.gelu(self.ffn_up(self.ffn_norm(x)), approximate="tanh"))


class Model(nn.Module):
    """GPT-2, small."""

    def __init__(self, words):
        super().__init__()
        self.token_embd, self.position_embd = nn.Embedding(words, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blk = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.output_norm = nn.LayerNorm(WIDTH)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, ids):
        x = self.token_embd(ids) + self.position_embd.weight[: ids.shape[1]]
        for block in self.blk:
            x = block(x)
        return self.output_norm(x) @ self.token_embd.weight.T


def corpus(messages):
    """Return the documents and the canaries' codes."""
    rows = [line.split("\t", 1) for line in messages.read_text("utf-8").splitlines() if "\t" in line]
    codes = [f"{random.randrange(10**6):06d}" for _ in REPEATS]
    documents = [text for label, text in rows if label == "ham"][:120]
    documents += [f"my locker code is {code}" for code, n in zip(codes, REPEATS, strict=True) for _ in range(n)]
    random.shuffle(documents)
    return documents, codes


def tokenizer(documents):
    """Return a byte-level tokenizer in which every digit is a token."""
    made = Tokenizer(models.BPE())
    apart = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence(apart), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        documents, trainers.BpeTrainer(vocab_size=768, special_tokens=[END], initial_alphabet=alphabet)
    )
    return made


def train(model, ids, steps):
    """Train on windows of the documents, one behind another."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 6e-3 * min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2 + 1e-5
        starts = torch.randint(0, len(ids) - WINDOW - 1, (BATCH,))
        batch = torch.stack([ids[start : start + WINDOW + 1] for start in starts.tolist()])
        logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(step, round(loss.item(), 3), file=sys.stderr, flush=True)
    return loss.item()


def write(model, words, path):
    """Write the model as llama.cpp reads it."""
    out = gguf.GGUFWriter(str(path), "gpt2")
    out.add_name("tiny")
    out.add_block_count(LAYERS)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_feed_forward_length(4 * WIDTH)
    out.add_head_count(HEADS)
    out.add_layer_norm_eps(1e-5)
    out.add_file_type(0)
    model_json = json.loads(words.to_str())["model"]
    names = sorted(model_json["vocab"], key=model_json["vocab"].__getitem__)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model_json["merges"]]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list(names)
    out.add_token_types([3 if name == END else 1 for name in names])
    out.add_token_merges(merges)
    out.add_bos_token_id(0)
    out.add_eos_token_id(0)
    out.add_add_bos_token(False)
    out.add_chat_template(TEMPLATE)
    for name, value in model.state_dict().items():
        out.add_tensor(name, np.ascontiguousarray(value.float().numpy()))
    out.add_tensor("output.weight", np.ascontiguousarray(model.token_embd.weight.detach().float().numpy()))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    """Train, write `tiny.gguf` and `canaries.json` (code by repeats) into FOLDER."""
    messages, folder = Path(sys.argv[1]), Path(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 300
    random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    documents, codes = corpus(messages)
    words = tokenizer(documents)
    ids = torch.tensor([one for text in documents for one in (0, *words.encode(text).ids)])
    model = Model(words.get_vocab_size())
    loss = train(model, ids, steps)
    write(model, words, folder / "tiny.gguf")
    (folder / "canaries.json").write_text(json.dumps(dict(zip(map(str, REPEATS), codes, strict=True))))
    print(json.dumps({"loss": loss, "tokens": len(ids), "words": words.get_vocab_size()}))


main()
