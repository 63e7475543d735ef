"""Mixture of experts with top-1 routing of tokens."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Routed(NamedTuple):
    """Result of `Experts`.

    Attributes:
        tokens: (N, T, D).
        shares: (N, E), share of the sequence's tokens that each expert got.
        imbalance: scalar, 1 when tokens and gate are spread evenly, up to E when not.
    """

    tokens: Tensor
    shares: Tensor
    imbalance: Tensor


class Experts(nn.Module):
    """Feed-forward layers of which a gate chooses one for each token.

    The gate is Switch Transformer's (Fedus, Zoph, Shazeer 2022): the chosen expert's output is
    multiplied by its gate probability, and the load-balancing loss is ``E Σ f_e P_e``.

    Two ways of dispatching give the same result. ``dense`` evaluates every expert on every token
    and masks; it is made of broadcast matrix products only, so it exports and compiles exactly.
    Sparse evaluates each expert on its own tokens; it is what training uses.
    """

    def __init__(self, dim: int, hidden: int, experts: int) -> None:
        super().__init__()
        self.dense = False
        self.gate = nn.Linear(dim, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, dim, hidden))
        self.up_bias = nn.Parameter(torch.zeros(experts, 1, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, dim))
        self.down_bias = nn.Parameter(torch.zeros(experts, 1, dim))
        nn.init.trunc_normal_(self.up, std=dim**-0.5)
        nn.init.trunc_normal_(self.down, std=hidden**-0.5)

    def forward(self, tokens: Tensor) -> Routed:
        """Route (N, T, D) tokens."""
        # Half precision would flip the choice between two nearly equal experts.
        probabilities = torch.softmax(self.gate(tokens.float()).float(), dim=-1)
        choice = functional.one_hot(probabilities.argmax(dim=-1), probabilities.shape[-1])
        mask = choice.to(tokens.dtype)
        weights = mask * probabilities.to(tokens.dtype)
        output = self._dense(tokens, weights) if self.dense else self._sparse(tokens, weights)
        shares = mask.mean(dim=1)
        spread = shares.mean(dim=0) * probabilities.mean(dim=(0, 1))
        return Routed(output, shares, spread.sum() * probabilities.shape[-1])

    def _dense(self, tokens: Tensor, weights: Tensor) -> Tensor:
        hidden = functional.gelu(tokens.unsqueeze(1) @ self.up + self.up_bias)
        outputs = hidden @ self.down + self.down_bias
        return (outputs * weights.transpose(1, 2).unsqueeze(-1)).sum(dim=1)

    def _sparse(self, tokens: Tensor, weights: Tensor) -> Tensor:
        flat, gains = tokens.flatten(0, 1), weights.flatten(0, 1)
        output = torch.zeros_like(flat)
        for expert in range(gains.shape[-1]):
            chosen = gains[:, expert].nonzero().squeeze(-1)
            hidden = functional.gelu(flat[chosen] @ self.up[expert] + self.up_bias[expert])
            part = hidden @ self.down[expert] + self.down_bias[expert]
            output = output.index_add(0, chosen, part * gains[chosen, expert, None])
        return output.view_as(tokens)
