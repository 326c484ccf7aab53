"""Single misreports worked out on the oracle's tree: replayed from a witness, or all of them."""

import dataclasses

import numpy as np

from tests.helpers import oracle


def nodes_of(case):
    """The market, and every node of its whole history tree under the efficient policy."""
    g, nodes = oracle.unpack(case), {}
    belief = (g.prior[:, None] * g.initial_signals.reshape(g.m, -1)).T
    shown, counted = range(g.n + 1), np.ones(g.n)
    oracle.walk(g, (), belief, g.initial_signals.shape[1:], shown, counted, nodes)
    return g, nodes


def _index(support, money):
    return tuple(int(np.flatnonzero(row == x)[0]) for row, x in zip(support, money))


def _path(g, symbols):
    """Row of a node: the signals of all periods, last period's symbols fastest."""
    path = 0
    for period, joint in enumerate(symbols):
        alphabet = g.initial_signals.shape[1:] if period == 0 else g.feedback.shape[2:]
        size, code = int(np.prod(alphabet)), int(np.ravel_multi_index(joint, alphabet))
        path = path * size + code
    return path


def replay(case, witness, names, settlement=oracle.ESTIMATOR, agent_nodes=None):
    """Recompute a witness from its own fields alone.

    **Returns:** gain, honest and deviant recommendation (n for none), and the probability of the
    node's signals given those of period 1. `agent_nodes`: nodes with other payoffs (`settled`).
    """
    g, nodes = nodes_of(case)
    nodes = agent_nodes or nodes
    i, labels = names.index(witness.advertiser), (*names, "none")
    history = tuple(labels.index(shown) for shown, _ in witness.history)
    assert len(history) == witness.period - 1
    true = [witness.signals, *(z for _, z in witness.history)]
    assert true[-1][i + 1] == witness.truth[1]
    assert witness.theta[i] == witness.truth[0]
    told = [
        *true[:-1],
        tuple(witness.report[1] if k == i + 1 else z for k, z in enumerate(true[-1])),
    ]
    values = _index(g.theta_support, witness.theta)
    said = list(values)
    said[i] = _index(g.theta_support[[i]], [witness.report[0]])[0]
    here, there = nodes[history], _path(g, told)
    at, reported = (int(np.ravel_multi_index(x, (g.K,) * g.n)) for x in (values, said))
    belief = here.belief[_path(g, true)]
    honest, deviant = here.choice[_path(g, true), at], here.choice[there, reported]
    lie = here.pay[deviant, settlement, there, at]
    truth = here.pay[honest, settlement, _path(g, true), at]
    start = nodes[()].belief[_path(g, true[:1])].sum()
    return belief @ (lie - truth) / belief.sum(), honest, deviant, belief.sum() / start


def settled(case, agent, price):
    """Nodes whose payoffs are one advertiser's: theta_i less `price(theta)` when i is bought."""
    g, nodes = nodes_of(case)
    net = np.array([theta[agent] - price(theta, agent) for theta in g.thetas])

    def walk(history):
        node, pays = nodes[history], []
        for r in range(g.n + 1):
            h = (*history, r)
            y = g.action[g.row[h]]
            shape = (2, *node.choice.shape, g.m)
            pay = np.broadcast_to(net[:, None] * y[agent], shape).copy()
            if len(h) < g.horizon:
                law = y[g.n + 1] * g.feedback[g.row[h]].reshape(g.m, -1).T
                child = walk(h)
                later = [np.einsum("zm,azpm->apm", law, oracle.apart(x, law)) for x in child]
                pay += g.kernel[r] @ np.stack(later)
            pays.append(pay)
        nodes[history] = dataclasses.replace(node, pay=np.stack(pays))
        return nodes[history].truthful()

    walk(())
    return g, nodes


def second_price(theta, agent):
    """The highest value among the others, zero if there is none."""
    return max((x for j, x in enumerate(theta) if j != agent), default=0.0)


def nothing(theta, agent):
    return 0.0


def private_gains(case, price):
    """Largest gain of a single misreport of each advertiser when she pays `price` a purchase."""
    gains = []
    for agent in range(len(case["gamma"])):
        g, nodes = settled(case, agent, price)
        on = oracle.reached(g, nodes)
        gains.append(max(oracle.largest_gains(g, nodes[h], on[h])[0, agent] for h in nodes))
    return np.array(gains)
