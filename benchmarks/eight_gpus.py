"""What a node of eight GPUs should reach, on paper: every assumption is a constant of this file.

    python benchmarks/eight_gpus.py

A step of ``B`` pairs is shared by W processes (:mod:`retrofit.training.distributed`). What each does for its share is
divided by W: tokenisation, and the passes of the network. What each does for the whole step is not: planning it,
gathering the embeddings, the loss, and summing the gradients. Nothing overlaps in what is shown but in the last
column, where the next step is planned and tokenised meanwhile. None of this is measured on such a node.
"""

from __future__ import annotations

from dataclasses import dataclass

GPUS = 8

# Dense bfloat16 and float32 (outside the tensor cores), H100 SXM: NVIDIA's data sheet, 989.4 and 66.9 TFLOP/s.
PEAK_BFLOAT16 = 989.4e12
PEAK_FLOAT32 = 66.9e12
# Shares of the two peaks that are reached: assumed. Matrices of 384 to 1,024 columns do not fill such a GPU.
SHARES_OF_PEAK = (0.15, 0.30)
LOSS_SHARE_OF_PEAK = 0.5
# Bytes a second of ring collectives between eight H100 over NVLink ("busbw" of nccl-tests for large messages): measured
# in github.com/NVIDIA/nccl-tests/issues/326, where a maintainer says that it is what is to be expected.
BUS_BANDWIDTH = 360e9
# A collective's time besides its bytes, launch and waiting for the slowest included: assumed.
COLLECTIVE_SECONDS = 50e-6
# Measured here, a second of one core: 248,000 tokens of the embedded corpus tokenised (in texts of 22 on average), and
# 48,800 pairs with a random negative each read and laid out as the texts and the relevance of a step of 1,024.
TOKENS_TOKENISED_PER_SECOND = 248_000
PAIRS_PLANNED_PER_SECOND = 48_800
# Of each process (conf/trainer/slurm.yaml). The tokenizer spreads a batch over them; planning has one.
CORES = 8

PASSAGES_PER_PAIR = 2  # the positive and one hard negative
LORA_RANK = 16  # on every linear layer, as conf/adapter/lora.yaml has it
BATCH_SIZE = 4_096


@dataclass(frozen=True)
class Encoder:
    """The sizes of an encoder.

    Attributes:
        name: of its option in conf/model.
        layers: how many.
        width: components of a token's vector, of which a layer's inner ones are four times as many.
    """

    name: str
    layers: int
    width: int

    @property
    def weights(self) -> int:
        """Of all matrices of the layers: four of attention, and two four times as large."""
        return self.layers * 12 * self.width**2

    @property
    def lora_weights(self) -> int:
        """Of the two small matrices beside each: rank times (inputs + outputs)."""
        return self.layers * LORA_RANK * (4 * 2 * self.width + 2 * 5 * self.width)

    def operations_per_token(self, tokens: int) -> float:
        """Return the operations of a training step for each token of a text of so many tokens.

        A product of a matrix and a vector is two operations a weight. Forward, every weight takes part once; backward,
        a frozen one once more (for its input) and one that learns twice. Attention multiplies each token's vector with
        those of all, for the scores and for the values, and backward twice as often.
        """
        attention = 2 * 2 * self.layers * tokens * self.width
        return 2 * (2 * self.weights + 3 * self.lora_weights) + 3 * attention


ENCODERS = (Encoder("me5_small", 12, 384), Encoder("me5_base", 12, 768), Encoder("me5_large", 24, 1_024))
LENGTHS = (32, 256)
"""Tokens of a text: of a sentence (conf/batching/short_texts.yaml), and of a paragraph."""


def milliseconds(encoder: Encoder, tokens: int, share_of_peak: float, processes: int) -> dict[str, float]:
    """Return the parts of a step in milliseconds."""
    texts, passages = BATCH_SIZE * (1 + PASSAGES_PER_PAIR), BATCH_SIZE * PASSAGES_PER_PAIR
    own_tokens = texts * tokens / processes
    embedding_bytes, gradient_bytes = texts * encoder.width * 4, encoder.lora_weights * 4
    others = (processes - 1) / processes
    loss = 3 * 2 * BATCH_SIZE * passages * encoder.width  # the scores, and back to queries and to passages
    seconds = {
        "planning": BATCH_SIZE / PAIRS_PLANNED_PER_SECOND,
        "tokenisation": own_tokens / (TOKENS_TOKENISED_PER_SECOND * CORES),
        "network": own_tokens * encoder.operations_per_token(tokens) / (PEAK_BFLOAT16 * share_of_peak),
        "loss": loss / (PEAK_FLOAT32 * LOSS_SHARE_OF_PEAK),
        # A ring sends (W-1)/W of the bytes to gather, and twice that to sum.
        "gather": (processes > 1) * (COLLECTIVE_SECONDS + embedding_bytes * others / BUS_BANDWIDTH),
        "gradients": (processes > 1) * (COLLECTIVE_SECONDS + 2 * gradient_bytes * others / BUS_BANDWIDTH),
    }
    return {part: 1000 * value for part, value in seconds.items()}


def main() -> None:
    parts = list(milliseconds(ENCODERS[0], LENGTHS[0], SHARES_OF_PEAK[0], 1))
    print(f"a step of {BATCH_SIZE:,} pairs on {GPUS} GPUs, milliseconds of each part; LoRA r={LORA_RANK}\n")
    print(
        "| model | tokens | share of peak |",
        " | ".join(parts),
        f"| pairs/s, 1 GPU | pairs/s, {GPUS} | times | overlapped |",
    )
    print("|---" * (len(parts) + 7) + "|")
    for encoder in ENCODERS:
        for tokens in LENGTHS:
            for share in SHARES_OF_PEAK:
                alone, together = (milliseconds(encoder, tokens, share, processes) for processes in (1, GPUS))
                one, eight = (1000 * BATCH_SIZE / sum(step.values()) for step in (alone, together))
                loading = together["planning"] + together["tokenisation"]
                overlapped = 1000 * BATCH_SIZE / max(loading, sum(together.values()) - loading)
                cells = " | ".join(f"{together[part]:.1f}" for part in parts)
                print(
                    f"| {encoder.name} | {tokens} | {share:.0%} | {cells} | {one:,.0f} | {eight:,.0f} | "
                    f"{eight / one:.1f} | {overlapped:,.0f} |"
                )


if __name__ == "__main__":
    main()
