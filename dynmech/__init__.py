"""Dynamic mechanism design for AI shopping assistants: policies, payments, audits.

Names are loaded when they are first asked for, so that importing the package takes no time.
"""

from typing import TYPE_CHECKING

from dynmech._late import late

if TYPE_CHECKING:
    from dynmech import applications as applications
    from dynmech import audit as audit
    from dynmech import groves as groves
    from dynmech import plotting as plotting
    from dynmech import settlement as settlement
    from dynmech import static as static
    from dynmech._baselines import PolicyComparison as PolicyComparison
    from dynmech._certify import Bounds as Bounds
    from dynmech._certify import Certificate as Certificate
    from dynmech._choice import AbstractActionRule as AbstractActionRule
    from dynmech._choice import ConstantQuery as ConstantQuery
    from dynmech._choice import FallingQuery as FallingQuery
    from dynmech._choice import ImperfectRecall as ImperfectRecall
    from dynmech._choice import LastShownOnly as LastShownOnly
    from dynmech._choice import Logit as Logit
    from dynmech._choice import PerfectRecall as PerfectRecall
    from dynmech._choice import ProductQuery as ProductQuery
    from dynmech._choice import Tabulated as Tabulated
    from dynmech._choice import Threshold as Threshold
    from dynmech._compare import Comparison as Comparison
    from dynmech._compare import compare as compare
    from dynmech._conversation import Conversation as Conversation
    from dynmech._decoders import Decoder as Decoder
    from dynmech._decoders import decode_tastes as decode_tastes
    from dynmech._decoders import decode_utilities as decode_utilities
    from dynmech._efficient import EfficientPolicy as EfficientPolicy
    from dynmech._efficient import solve_efficient_policy as solve_efficient_policy
    from dynmech._environment import RecommendationMDP as RecommendationMDP
    from dynmech._errors import DynmechError as DynmechError
    from dynmech._errors import ImpossibleProfile as ImpossibleProfile
    from dynmech._errors import InvalidArgument as InvalidArgument
    from dynmech._errors import InvalidProbability as InvalidProbability
    from dynmech._errors import MissingExtra as MissingExtra
    from dynmech._errors import NotFinite as NotFinite
    from dynmech._errors import OutsideSupport as OutsideSupport
    from dynmech._errors import TooLarge as TooLarge
    from dynmech._errors import TrainingDiverged as TrainingDiverged
    from dynmech._errors import UnseenPurchase as UnseenPurchase
    from dynmech._estimator_checks import EstimatorReport as EstimatorReport
    from dynmech._estimator_checks import EstimatorWitness as EstimatorWitness
    from dynmech._estimator_checks import check_assumption_3 as check_assumption_3
    from dynmech._estimator_checks import purchase_support as purchase_support
    from dynmech._estimators import AveragedSettlement as AveragedSettlement
    from dynmech._estimators import ChannelSettlement as ChannelSettlement
    from dynmech._estimators import OracleSettlement as OracleSettlement
    from dynmech._estimators import PosteriorMeanSettlement as PosteriorMeanSettlement
    from dynmech._estimators import QuantisedRatingSettlement as QuantisedRatingSettlement
    from dynmech._estimators import StoppedAverageSettlement as StoppedAverageSettlement
    from dynmech._feedback import ChannelFeedback as ChannelFeedback
    from dynmech._feedback import NoFeedback as NoFeedback
    from dynmech._feedback import RatingFeedback as RatingFeedback
    from dynmech._feedback import TabulatedFeedback as TabulatedFeedback
    from dynmech._ledger import Ledger as Ledger
    from dynmech._long_conversation import LongConversation as LongConversation
    from dynmech._long_horizon import LongPolicy as LongPolicy
    from dynmech._long_solve import solve_long_horizon as solve_long_horizon
    from dynmech._payment_moments import PaymentMoments as PaymentMoments
    from dynmech._payment_moments import payment_distribution as payment_distribution
    from dynmech._payment_moments import payment_moments as payment_moments
    from dynmech._profiles import Profiles as Profiles
    from dynmech._relaxation import Relaxation as Relaxation
    from dynmech._signals import AbstractSettlementSignal as AbstractSettlementSignal
    from dynmech._signals import GaussianSignals as GaussianSignals
    from dynmech._signals import JointSignals as JointSignals
    from dynmech._signals import NoSignals as NoSignals
    from dynmech._signals import RatingSettlement as RatingSettlement
    from dynmech._signals import SignalStructure as SignalStructure
    from dynmech._signals import TabulatedSettlement as TabulatedSettlement
    from dynmech._simulate import Simulation as Simulation
    from dynmech._structures import PrivateFeedback as PrivateFeedback
    from dynmech._structures import PrivateStructures as PrivateStructures
    from dynmech._tastes import TasteGrid as TasteGrid
    from dynmech._transfers import DynamicTeamMechanism as DynamicTeamMechanism
    from dynmech._undominated import Undominated as Undominated
    from dynmech._undominated import undominated as undominated
    from dynmech._values import ConstantValues as ConstantValues
    from dynmech._values import MarkovValues as MarkovValues
    from dynmech.audit import Audit as Audit
    from dynmech.audit import BestResponse as BestResponse
    from dynmech.audit import LongAudit as LongAudit
    from dynmech.audit import MeasuredGains as MeasuredGains
    from dynmech.audit import Witness as Witness
    from solvers import BranchAndBound as BranchAndBound
    from solvers import Exact as Exact
    from solvers import Neural as Neural
    from solvers import PointBased as PointBased
    from solvers import Stationary as Stationary
else:
    __getattr__, __dir__ = late(
        globals(),
        {
            "dynmech": "applications audit groves plotting settlement static",
            "dynmech._baselines": "PolicyComparison",
            "dynmech._certify": "Bounds Certificate",
            "dynmech._choice": (
                "AbstractActionRule ConstantQuery FallingQuery ImperfectRecall LastShownOnly "
                "Logit PerfectRecall ProductQuery Tabulated Threshold"
            ),
            "dynmech._compare": "Comparison compare",
            "dynmech._conversation": "Conversation",
            "dynmech._decoders": "Decoder decode_tastes decode_utilities",
            "dynmech._efficient": "EfficientPolicy solve_efficient_policy",
            "dynmech._environment": "RecommendationMDP",
            "dynmech._errors": (
                "DynmechError ImpossibleProfile InvalidArgument InvalidProbability MissingExtra "
                "NotFinite OutsideSupport TooLarge TrainingDiverged UnseenPurchase"
            ),
            "dynmech._estimator_checks": (
                "EstimatorReport EstimatorWitness check_assumption_3 purchase_support"
            ),
            "dynmech._estimators": (
                "AveragedSettlement ChannelSettlement OracleSettlement PosteriorMeanSettlement "
                "QuantisedRatingSettlement StoppedAverageSettlement"
            ),
            "dynmech._feedback": "ChannelFeedback NoFeedback RatingFeedback TabulatedFeedback",
            "dynmech._ledger": "Ledger",
            "dynmech._long_conversation": "LongConversation",
            "dynmech._long_horizon": "LongPolicy",
            "dynmech._long_solve": "solve_long_horizon",
            "dynmech._payment_moments": "PaymentMoments payment_distribution payment_moments",
            "dynmech._profiles": "Profiles",
            "dynmech._relaxation": "Relaxation",
            "dynmech._signals": (
                "AbstractSettlementSignal GaussianSignals JointSignals NoSignals RatingSettlement "
                "SignalStructure TabulatedSettlement"
            ),
            "dynmech._simulate": "Simulation",
            "dynmech._structures": "PrivateFeedback PrivateStructures",
            "dynmech._tastes": "TasteGrid",
            "dynmech._transfers": "DynamicTeamMechanism",
            "dynmech._undominated": "Undominated undominated",
            "dynmech._values": "ConstantValues MarkovValues",
            "dynmech.audit": "Audit BestResponse LongAudit MeasuredGains Witness",
            "solvers": "BranchAndBound Exact Neural PointBased Stationary",
        },
    )
