"""Dynamic mechanism design for AI shopping assistants: policies, payments, audits.

Names are loaded when they are first asked for, so that importing the package takes no time.
"""

from typing import TYPE_CHECKING

from dynmech._late import late, require_own

require_own("solvers", __file__)

if TYPE_CHECKING:
    __version__: str
    from dynmech import applications as applications
    from dynmech import audit as audit
    from dynmech import groves as groves
    from dynmech import plotting as plotting
    from dynmech import settlement as settlement
    from dynmech import static as static
    from dynmech._latex import to_latex as to_latex
    from dynmech._programs import enable_compilation_cache as enable_compilation_cache
    from dynmech.audit import Audit as Audit
    from dynmech.audit import AuditsUnder as AuditsUnder
    from dynmech.audit import BestResponse as BestResponse
    from dynmech.audit import MeasuredGains as MeasuredGains
    from dynmech.audit import Witness as Witness
    from dynmech.audit.estimators import EstimatorReport as EstimatorReport
    from dynmech.audit.estimators import EstimatorWitness as EstimatorWitness
    from dynmech.audit.estimators import check_assumption_3 as check_assumption_3
    from dynmech.audit.estimators import purchase_support as purchase_support
    from dynmech.bounded import Bounded as Bounded
    from dynmech.bounded import Bounds as Bounds
    from dynmech.errors import DynmechError as DynmechError
    from dynmech.errors import DynmechWarning as DynmechWarning
    from dynmech.errors import ImpossibleProfile as ImpossibleProfile
    from dynmech.errors import InvalidArgument as InvalidArgument
    from dynmech.errors import InvalidProbability as InvalidProbability
    from dynmech.errors import MiscompilingJaxWarning as MiscompilingJaxWarning
    from dynmech.errors import MissingExtra as MissingExtra
    from dynmech.errors import NotFinite as NotFinite
    from dynmech.errors import NotIdentified as NotIdentified
    from dynmech.errors import OutsideSupport as OutsideSupport
    from dynmech.errors import ToleranceMissed as ToleranceMissed
    from dynmech.errors import TooLarge as TooLarge
    from dynmech.errors import TrainingDiverged as TrainingDiverged
    from dynmech.errors import UnseenPurchase as UnseenPurchase
    from dynmech.estimators.decoders import Decoder as Decoder
    from dynmech.estimators.decoders import decode_tastes as decode_tastes
    from dynmech.estimators.decoders import decode_utilities as decode_utilities
    from dynmech.estimators.inverse_propensity import InversePropensity as InversePropensity
    from dynmech.estimators.posterior_mean import PosteriorMeanSettlement as PosteriorMeanSettlement
    from dynmech.estimators.settlement_signals import AveragedSettlement as AveragedSettlement
    from dynmech.estimators.settlement_signals import ChannelSettlement as ChannelSettlement
    from dynmech.estimators.settlement_signals import OracleSettlement as OracleSettlement
    from dynmech.estimators.settlement_signals import (
        QuantisedRatingSettlement as QuantisedRatingSettlement,
    )
    from dynmech.estimators.settlement_signals import (
        StoppedAverageSettlement as StoppedAverageSettlement,
    )
    from dynmech.explorer import explore as explore
    from dynmech.explorer import report as report
    from dynmech.logs.fit import Fit as Fit
    from dynmech.logs.fit import fit as fit
    from dynmech.logs.log import Log as Log
    from dynmech.market.choices import AbstractChoice as AbstractChoice
    from dynmech.market.choices import AbstractQuery as AbstractQuery
    from dynmech.market.choices import ConstantQuery as ConstantQuery
    from dynmech.market.choices import FallingQuery as FallingQuery
    from dynmech.market.choices import Logit as Logit
    from dynmech.market.choices import ProductQuery as ProductQuery
    from dynmech.market.choices import Threshold as Threshold
    from dynmech.market.displays import Displays as Displays
    from dynmech.market.environment import RecommendationMDP as RecommendationMDP
    from dynmech.market.feedback import AbstractFeedback as AbstractFeedback
    from dynmech.market.feedback import ChannelFeedback as ChannelFeedback
    from dynmech.market.feedback import NoFeedback as NoFeedback
    from dynmech.market.feedback import RatingFeedback as RatingFeedback
    from dynmech.market.feedback import TabulatedFeedback as TabulatedFeedback
    from dynmech.market.missing import MissingRatings as MissingRatings
    from dynmech.market.missing import RatingLaw as RatingLaw
    from dynmech.market.profiles import Profiles as Profiles
    from dynmech.market.read import read_market as read_market
    from dynmech.market.rules import AbstractActionRule as AbstractActionRule
    from dynmech.market.rules import ImperfectRecall as ImperfectRecall
    from dynmech.market.rules import LastShownOnly as LastShownOnly
    from dynmech.market.rules import PerfectRecall as PerfectRecall
    from dynmech.market.rules import Tabulated as Tabulated
    from dynmech.market.settlements import AbstractSettlementSignal as AbstractSettlementSignal
    from dynmech.market.settlements import RatingSettlement as RatingSettlement
    from dynmech.market.settlements import TabulatedSettlement as TabulatedSettlement
    from dynmech.market.signals import AbstractInitialSignals as AbstractInitialSignals
    from dynmech.market.signals import GaussianSignals as GaussianSignals
    from dynmech.market.signals import JointSignals as JointSignals
    from dynmech.market.signals import NoSignals as NoSignals
    from dynmech.market.signals import SignalStructure as SignalStructure
    from dynmech.market.structures import PrivateFeedback as PrivateFeedback
    from dynmech.market.structures import PrivateStructures as PrivateStructures
    from dynmech.market.tastes import TasteGrid as TasteGrid
    from dynmech.market.trembling import Trembling as Trembling
    from dynmech.market.values import ConstantValues as ConstantValues
    from dynmech.market.values import MarkovValues as MarkovValues
    from dynmech.mechanism.compare import Comparison as Comparison
    from dynmech.mechanism.compare import compare as compare
    from dynmech.mechanism.payment_moments import PaymentMoments as PaymentMoments
    from dynmech.mechanism.payment_moments import payment_distribution as payment_distribution
    from dynmech.mechanism.payment_moments import payment_moments as payment_moments
    from dynmech.mechanism.team import DynamicTeamMechanism as DynamicTeamMechanism
    from dynmech.payments.groves import AbstractGroves as AbstractGroves
    from dynmech.payments.ledger import Ledger as Ledger
    from dynmech.payments.settlement import AbstractSettlement as AbstractSettlement
    from dynmech.play.records import Simulation as Simulation
    from dynmech.play.summary import SimulationSummary as SimulationSummary
    from dynmech.policy.base import EfficientPolicy as EfficientPolicy
    from dynmech.policy.baselines import PolicyComparison as PolicyComparison
    from dynmech.policy.conversation import Conversation as Conversation
    from dynmech.policy.efficient import solve_efficient_policy as solve_efficient_policy
    from dynmech.policy.explain import Explanation as Explanation
    from dynmech.policy.given import GivenPolicy as GivenPolicy
    from dynmech.policy.questions import AbstractPolicy as AbstractPolicy
    from dynmech.policy.relaxation import Relaxation as Relaxation
    from dynmech.reduce.undominated import Undominated as Undominated
    from dynmech.reduce.undominated import undominated as undominated
    from dynmech.sweeps import Sweep as Sweep
    from dynmech.sweeps import sweep as sweep
    from solvers import AbstractCritic as AbstractCritic
    from solvers import AbstractLearner as AbstractLearner
    from solvers import AbstractSolver as AbstractSolver
    from solvers import BestFirst as BestFirst
    from solvers import BranchAndBound as BranchAndBound
    from solvers import Certificate as Certificate
    from solvers import Exact as Exact
    from solvers import Neural as Neural
    from solvers import PointBased as PointBased
    from solvers import Stationary as Stationary
    from solvers import Status as Status
else:
    __getattr__, __dir__ = late(
        globals(),
        {
            "dynmech": "applications audit groves plotting settlement static",
            "dynmech.bounded": "Bounded Bounds",
            "dynmech.policy.baselines": "PolicyComparison",
            "dynmech.explorer": "explore report",
            "dynmech.logs.fit": "Fit fit",
            "dynmech.logs.log": "Log",
            "dynmech.market.read": "read_market",
            "dynmech.market.choices": (
                "AbstractChoice AbstractQuery ConstantQuery FallingQuery Logit ProductQuery "
                "Threshold"
            ),
            "dynmech.market.rules": (
                "AbstractActionRule ImperfectRecall LastShownOnly PerfectRecall Tabulated"
            ),
            "dynmech.mechanism.compare": "Comparison compare",
            "dynmech.policy.conversation": "Conversation",
            "dynmech.estimators.decoders": "Decoder decode_tastes decode_utilities",
            "dynmech.policy.base": "EfficientPolicy",
            "dynmech.policy.efficient": "solve_efficient_policy",
            "dynmech.policy.explain": "Explanation",
            "dynmech.policy.given": "GivenPolicy",
            "dynmech.policy.questions": "AbstractPolicy",
            "dynmech.market.displays": "Displays",
            "dynmech.market.environment": "RecommendationMDP",
            "dynmech.errors": (
                "DynmechError DynmechWarning ImpossibleProfile InvalidArgument InvalidProbability "
                "MiscompilingJaxWarning MissingExtra NotFinite NotIdentified OutsideSupport "
                "ToleranceMissed TooLarge TrainingDiverged UnseenPurchase"
            ),
            "dynmech.audit.estimators": (
                "EstimatorReport EstimatorWitness check_assumption_3 purchase_support"
            ),
            "dynmech.estimators.inverse_propensity": "InversePropensity",
            "dynmech.market.missing": "MissingRatings RatingLaw",
            "dynmech.estimators.settlement_signals": (
                "AveragedSettlement ChannelSettlement OracleSettlement QuantisedRatingSettlement "
                "StoppedAverageSettlement"
            ),
            "dynmech.estimators.posterior_mean": "PosteriorMeanSettlement",
            "dynmech.market.feedback": (
                "AbstractFeedback ChannelFeedback NoFeedback RatingFeedback TabulatedFeedback"
            ),
            "dynmech.payments.groves": "AbstractGroves",
            "dynmech.payments.ledger": "Ledger",
            "dynmech.payments.settlement": "AbstractSettlement",
            "dynmech.mechanism.payment_moments": (
                "PaymentMoments payment_distribution payment_moments"
            ),
            "dynmech.market.profiles": "Profiles",
            "dynmech.policy.relaxation": "Relaxation",
            "dynmech.market.settlements": (
                "AbstractSettlementSignal RatingSettlement TabulatedSettlement"
            ),
            "dynmech.market.signals": (
                "AbstractInitialSignals GaussianSignals JointSignals NoSignals SignalStructure"
            ),
            "dynmech.play.records": "Simulation",
            "dynmech.play.summary": "SimulationSummary",
            "dynmech.market.structures": "PrivateFeedback PrivateStructures",
            "dynmech.market.tastes": "TasteGrid",
            "dynmech.market.trembling": "Trembling",
            "dynmech.mechanism.team": "DynamicTeamMechanism",
            "dynmech.reduce.undominated": "Undominated undominated",
            "dynmech.market.values": "ConstantValues MarkovValues",
            "dynmech.audit": "Audit AuditsUnder BestResponse MeasuredGains Witness",
            "dynmech.sweeps": "Sweep sweep",
            "dynmech._latex": "to_latex",
            "dynmech._programs": "enable_compilation_cache",
            "solvers": (
                "AbstractCritic AbstractLearner AbstractSolver BestFirst BranchAndBound "
                "Certificate Exact Neural PointBased Stationary Status"
            ),
        },
        beside=(
            # results
            "AuditsUnder BestResponse Bounds Comparison EstimatorReport EstimatorWitness "
            "Explanation Fit Ledger MeasuredGains PaymentMoments PolicyComparison Relaxation "
            "Simulation SimulationSummary Sweep Undominated Witness "
            # estimators and decoders
            "AveragedSettlement ChannelSettlement Decoder OracleSettlement PosteriorMeanSettlement "
            "QuantisedRatingSettlement StoppedAverageSettlement check_assumption_3 decode_tastes "
            "decode_utilities payment_distribution payment_moments purchase_support "
            # parts of tables, and of what is private
            "BestFirst ConstantQuery PrivateFeedback PrivateStructures RatingLaw Tabulated "
            "TabulatedFeedback TabulatedSettlement "
            # errors that say more than DynmechError, all of which are some
            "ImpossibleProfile InvalidArgument InvalidProbability MiscompilingJaxWarning "
            "MissingExtra NotFinite NotIdentified OutsideSupport TrainingDiverged UnseenPurchase"
        ),
    )
