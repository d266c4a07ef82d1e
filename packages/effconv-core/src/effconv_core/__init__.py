"""EffConv: learn the kernel size of every convolution of a CNN under a budget."""

from effconv_core.config import RECIPES, SearchConfig, recipe
from effconv_core.cost.base import TapCost
from effconv_core.cost.budget import Budget
from effconv_core.cost.latency import Latency
from effconv_core.cost.losses import paper_budget_loss, smooth_budget_loss
from effconv_core.cost.macs import Macs
from effconv_core.distributed.consistency import check_ranks
from effconv_core.engine.frontier import Frontier, FrontierPoint, frontier
from effconv_core.engine.probe import Probe, probe
from effconv_core.engine.score import PlanScore, rank_plan, score
from effconv_core.engine.search import SearchStep, search
from effconv_core.engine.tournament import tournament
from effconv_core.evidence import Evidence
from effconv_core.io.checkpoint import load_training_state, save_training_state
from effconv_core.method.kernel_bank import KernelBank
from effconv_core.method.kernel_predictor import LiteralKernelPredictor, ProjectedKernelPredictor
from effconv_core.method.mask import modulation_mask
from effconv_core.method.searchable import SearchableCNN
from effconv_core.method.size_predictor import SizePredictor
from effconv_core.plan import SizePlan, apply_plan, load, save
from effconv_core.space.rounding import round_straight_through
from effconv_core.space.search_space import Layer, SizeSpace
from effconv_core.space.selection import left_alone, searched_layers

__version__ = "0.9.0"

__all__ = [
    "RECIPES",
    "Budget",
    "Evidence",
    "Frontier",
    "FrontierPoint",
    "KernelBank",
    "Latency",
    "Layer",
    "LiteralKernelPredictor",
    "Macs",
    "PlanScore",
    "Probe",
    "ProjectedKernelPredictor",
    "SearchConfig",
    "SearchStep",
    "SearchableCNN",
    "SizePlan",
    "SizePredictor",
    "SizeSpace",
    "TapCost",
    "apply_plan",
    "check_ranks",
    "frontier",
    "left_alone",
    "load",
    "load_training_state",
    "modulation_mask",
    "paper_budget_loss",
    "probe",
    "rank_plan",
    "recipe",
    "round_straight_through",
    "save",
    "save_training_state",
    "score",
    "search",
    "searched_layers",
    "smooth_budget_loss",
    "tournament",
]
