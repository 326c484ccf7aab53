"""The static theory: data-driven mechanisms for preferences and information, and their rivals."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from dynmech._late import suggesting as _suggesting
from dynmech.audit.witness import Witness as Witness
from dynmech.bounded import Bounded as Bounded
from dynmech.static.agent_clicks import AgentClickAuction as AgentClickAuction
from dynmech.static.agent_clicks import click_lottery as click_lottery
from dynmech.static.agent_clicks import per_click_second_price as per_click_second_price
from dynmech.static.assistant import AssistantHistory as AssistantHistory
from dynmech.static.assistant import AssistantProfile as AssistantProfile
from dynmech.static.assistant import GaussianBelief as GaussianBelief
from dynmech.static.assistant import ShoppingAssistant as ShoppingAssistant
from dynmech.static.assistant_audit import AssistantAudit as AssistantAudit
from dynmech.static.assistant_audit import least_message_gain as least_message_gain
from dynmech.static.assistant_mechanism import AssistantMechanism as AssistantMechanism
from dynmech.static.assistant_play import AssistantConversations as AssistantConversations
from dynmech.static.assistant_play import simulate_assistant as simulate_assistant
from dynmech.static.assistant_policy import AssistantBracket as AssistantBracket
from dynmech.static.assistant_policy import AssistantSolution as AssistantSolution
from dynmech.static.assistant_policy import assistant_ex_ante as assistant_ex_ante
from dynmech.static.assistant_policy import bound_assistant as bound_assistant
from dynmech.static.assistant_policy import solve_assistant as solve_assistant
from dynmech.static.assistant_types import AssistantTypes as AssistantTypes
from dynmech.static.audit import EpsilonBounds as EpsilonBounds
from dynmech.static.audit import StaticAudit as StaticAudit
from dynmech.static.audit import epsilon_bounds as epsilon_bounds
from dynmech.static.click_converse import TransferRange as TransferRange
from dynmech.static.click_converse import replace_transfers as replace_transfers
from dynmech.static.click_converse import transfer_range as transfer_range
from dynmech.static.click_data import click_frequency as click_frequency
from dynmech.static.click_data import inverse_propensity as inverse_propensity
from dynmech.static.click_data import sampled_clicks as sampled_clicks
from dynmech.static.click_mechanisms import RealisedSlack as RealisedSlack
from dynmech.static.click_mechanisms import click_pivot as click_pivot
from dynmech.static.click_mechanisms import generalised_second_price as generalised_second_price
from dynmech.static.click_mechanisms import per_impression_pivot as per_impression_pivot
from dynmech.static.click_mechanisms import realised_slack as realised_slack
from dynmech.static.clicks import ClickAuction as ClickAuction
from dynmech.static.clicks import click_prices as click_prices
from dynmech.static.contingent import MessageBound as MessageBound
from dynmech.static.contingent import least_message_epsilon as least_message_epsilon
from dynmech.static.contingent import message_vcg as message_vcg
from dynmech.static.contingent import mezzetti as mezzetti
from dynmech.static.contingent import mezzetti_transfers as mezzetti_transfers
from dynmech.static.contingent import second_stage_spread as second_stage_spread
from dynmech.static.environment import StaticEnvironment as StaticEnvironment
from dynmech.static.environment import Types as Types
from dynmech.static.estimators import AbstractData as AbstractData
from dynmech.static.estimators import BayesianData as BayesianData
from dynmech.static.estimators import Estimator as Estimator
from dynmech.static.estimators import IdealData as IdealData
from dynmech.static.gaussian import expected_maximum as expected_maximum
from dynmech.static.logit_demand import DemandEstimate as DemandEstimate
from dynmech.static.logit_demand import LogitDemand as LogitDemand
from dynmech.static.logit_demand import estimate_logit as estimate_logit
from dynmech.static.lottery import Lottery as Lottery
from dynmech.static.lottery import Relevance as Relevance
from dynmech.static.lottery import Separation as Separation
from dynmech.static.lottery import check_relevance as check_relevance
from dynmech.static.lottery import lottery_mechanism as lottery_mechanism
from dynmech.static.lottery import separate as separate
from dynmech.static.lottery import surplus_extraction as surplus_extraction
from dynmech.static.mechanisms import DirectMechanism as DirectMechanism
from dynmech.static.mechanisms import data_driven_vcg as data_driven_vcg
from dynmech.static.mechanisms import realised_transfers as realised_transfers
from dynmech.static.prediction import JointPrediction as JointPrediction
from dynmech.static.procurement import Procurement as Procurement
from dynmech.static.signals import PrivateSignals as PrivateSignals
from dynmech.static.spot_market import SpotEquilibrium as SpotEquilibrium
from dynmech.static.spot_market import recover_costs as recover_costs
from dynmech.static.spot_market import spot_equilibrium as spot_equilibrium

StaticWitness = AssistantWitness = Witness
Simulated = Bounded

if not _TYPE_CHECKING:
    __getattr__ = _suggesting(globals())
