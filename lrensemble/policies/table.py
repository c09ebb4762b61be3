"""`POLICIES`: every policy by its name in text, with its formula and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from lrensemble.policies import compose, decay, family, feedback, practice
from lrensemble.policies.base import Policy

__all__ = ["POLICIES", "PolicySpec"]


@dataclass(frozen=True)
class PolicySpec:
    """One entry of the table.

    Attributes
    ----------
    policy
        The class.
    formula
        lr(t), in the notation of the source; of a feedback policy, how it goes on after an epoch.
    source
        Paper or library.
    description
        One line for listings.
    """

    policy: type[Policy]
    formula: str
    source: str
    description: str


_Row = PolicySpec

LRB19 = "Wu et al. 2019, arXiv 1908.06477"
LRB22 = "Wu & Liu 2022, arXiv 2210.12936"
SGDR = "arXiv 1608.03983"
COMPOSITE = "Jin & Wu 2024, arXiv 2410.07564"
COSINE = "peak t/w, then floor + (peak-floor)(1+cos(π(t-w)/(T-w)))/2"
PIECES = "policy_i(t - b_(i-1)) for b_(i-1) ≤ t < b_i: [A @ b0 | B @ b1 | C]"
REDUCE = "k0, times factor after each plateau of val_loss or val_accuracy"
CHANGE = "policy_i(t - start of i); after a plateau i-1 (larger), late in the run i+1 (smaller)"

# fmt: off
POLICIES: dict[str, PolicySpec] = {
    "FIX": _Row(decay.FIX, "k0", LRB19, "constant"),
    "STEP": _Row(decay.STEP, "k0 γ^⌊t/l⌋", LRB19, "a factor every l steps"),
    "NSTEP": _Row(decay.NSTEP, "k0 γ^i, i = number of l_j ≤ t", LRB19, "a factor at given steps"),
    "MultiStep": _Row(decay.NSTEP, "k0 γ^i, i = number of l_j ≤ t", "PyTorch", "another name of NSTEP"),
    "EXP": _Row(decay.EXP, "k0 γ^t", LRB19, "a factor every step"),
    "INV": _Row(decay.INV, "k0 (1+γt)^(-p)", LRB19, "inverse decay"),
    "POLY": _Row(decay.POLY, "(k1-k0)(1-t/l)^p + k0, from l on k0", LRB19, "polynomial fall from k1 to k0"),
    "SIG": _Row(decay.SIG, "k0 / (1+exp(-γ(t-l)))", "Caffe", "sigmoid around l"),
    "TRI": _Row(family.TRI, "(k1-k0) tri(t) + k0, tri(t) = (2/π)|asin(sin(πt/2l))|", LRB19, "triangle"),
    "TRI2": _Row(family.TRI2, "(k1-k0) tri(t) / 2^⌊t/2l⌋ + k0", LRB19, "triangle, halved each"),
    "TRIEXP": _Row(family.TRIEXP, "(k1-k0) tri(t) γ^t + k0", LRB19, "triangle, decaying"),
    "SIN": _Row(family.SIN, "(k1-k0) sin(t) + k0, sin(t) = |sin(πt/2l)|", LRB19, "sine arches"),
    "SIN2": _Row(family.SIN2, "(k1-k0) sin(t) / 2^⌊t/2l⌋ + k0", LRB19, "sine arches, halved each"),
    "SINEXP": _Row(family.SINEXP, "(k1-k0) sin(t) γ^t + k0", LRB19, "sine arches, decaying"),
    "COS": _Row(family.COS, "(k1-k0) (1+cos(πt/l))/2 + k0", LRB19, "cosine from k1"),
    "COS2": _Row(family.COS2, "(k1-k0) (1+cos(πt/l))/2 / 2^⌊(t+l)/2l⌋ + k0", LRB22, "cosine from k1, halved each"),
    "COSEXP": _Row(family.COSEXP, "(k1-k0) (1+cos(πt/l))/2 γ^t + k0", LRB22, "cosine from k1, decaying"),
    "UPCOS": _Row(family.UPCOS, "(k1-k0) (1-cos(πt/l))/2 + k0", LRB22, "cosine from k0"),
    "UPCOS2": _Row(family.UPCOS2, "(k1-k0) (1-cos(πt/l))/2 / 2^⌊t/2l⌋ + k0", LRB22, "cosine from k0, halved each"),
    "UPCOSEXP": _Row(family.UPCOSEXP, "(k1-k0) (1-cos(πt/l))/2 γ^t + k0", LRB22, "cosine from k0, decaying"),
    "DTRI": _Row(family.DTRI, "(k1-k0) tri(t+l) + k0", LRB22, "triangle from k1"),
    "DTRI2": _Row(family.DTRI2, "(k1-k0) tri(t+l) / 2^⌊(t+l)/2l⌋ + k0", LRB22, "triangle from k1, halved each"),
    "DTRIEXP": _Row(family.DTRIEXP, "(k1-k0) tri(t+l) γ^t + k0", LRB22, "triangle from k1, decaying"),
    "DSIN": _Row(family.DSIN, "(k1-k0) sin(t+l) + k0", LRB22, "sine arches from k1"),
    "DSIN2": _Row(family.DSIN2, "(k1-k0) sin(t+l) / 2^⌊(t+l)/2l⌋ + k0", LRB22, "sine arches from k1, halved each"),
    "DSINEXP": _Row(family.DSINEXP, "(k1-k0) sin(t+l) γ^t + k0", LRB22, "sine arches from k1, decaying"),
    "RSW": _Row(family.RSW, "(k1-k0) s(t) + k0, s(t) = 1 - (t mod l)/l", LRB22, "linear fall with restarts"),
    "RSW2": _Row(family.RSW2, "(k1-k0) s(t) / 2^⌊t/l⌋ + k0", LRB22, "linear restarts, halved each"),
    "RSWEXP": _Row(family.RSWEXP, "(k1-k0) s(t) γ^t + k0", LRB22, "linear restarts, decaying"),
    "SINRSW": _Row(family.SINRSW, "(k1-k0) sin(πs(t)/2) + k0", LRB22, "sine fall with restarts"),
    "SINRSW2": _Row(family.SINRSW2, "(k1-k0) sin(πs(t)/2) / 2^⌊t/l⌋ + k0", LRB22, "sine restarts, halved each"),
    "SINRSWEXP": _Row(family.SINRSWEXP, "(k1-k0) sin(πs(t)/2) γ^t + k0", LRB22, "sine restarts, decaying"),
    "COSRSW": _Row(family.COSRSW, "(k1-k0) (1-cos(πs(t)))/2 + k0", LRB22, "cosine fall with restarts"),
    "COSRSW2": _Row(family.COSRSW2, "(k1-k0) (1-cos(πs(t)))/2 / 2^⌊t/l⌋ + k0", LRB22, "cosine restarts, halved each"),
    "COSRSWEXP": _Row(family.COSRSWEXP, "(k1-k0) (1-cos(πs(t)))/2 γ^t + k0", LRB22, "cosine restarts, decaying"),
    "SGDR": _Row(practice.SGDR, "k0 + (k1-k0)(1+cos(πu/l_i))/2, l_i = l mult^i", SGDR, "cosine, slow restarts"),
    "Snapshot": _Row(practice.Snapshot, "COSRSW with l = total/cycles", "arXiv 1704.00109", "cosine restarts, counted"),
    "WarmupDecay": _Row(practice.WarmupDecay, "peak r(t), then a line to floor", "DeepSpeed", "warm-up, then a line"),
    "WarmupCosine": _Row(practice.WarmupCosine, COSINE, SGDR, "warm-up, then half a cosine"),
    "OneCycle": _Row(practice.OneCycle, "peak/div → peak → peak/div/final_div", "arXiv 1708.07120", "rise and fall"),
    "Trapezoid": _Row(practice.Trapezoid, "0 → peak, peak, peak → floor", "arXiv 2405.18392", "warm-up, stable, decay"),
    "WSD": _Row(practice.Trapezoid, "0 → peak, peak, peak → floor", "arXiv 2404.06395", "another name of Trapezoid"),
    "Warmup": _Row(compose.Warmup, "r(t) then(0), then then(t-w)", "arXiv 1706.02677", "a rise in front of any policy"),
    "Piecewise": _Row(compose.Piecewise, PIECES, COMPOSITE, "one policy after the other, each from its own start"),
    "Composite": _Row(compose.Piecewise, PIECES, COMPOSITE, "another name of Piecewise"),
    "ReduceOnPlateau": _Row(feedback.ReduceOnPlateau, REDUCE, "PyTorch", "a factor when training stops improving"),
    "ChangeOnPlateau": _Row(feedback.ChangeOnPlateau, CHANGE, LRB22, "another policy when training stops improving"),
}
# fmt: on
