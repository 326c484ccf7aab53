"""What searches have found, as arrays for a checkpoint, and searches that go on from them."""

from typing import Any

import numpy as np

from solvers.checkpoint import named, within
from solvers.search.best_first import Search
from solvers.search.graph import Graph
from solvers.search.nodes import Nodes
from solvers.search.offers import Offers, Place

Arrays = dict[str, np.ndarray]


def search_state(search: Search) -> Arrays:
    """All that a best-first search has found, but its economies."""
    return {
        **named("store", search.store.state()),
        **named("pairs", search.pairs.state()),
        **named("opened", search.opened.state()),
        "top": np.array(search.top),
        "known": np.array([len(table) for table in search.pair_of]),
    }


def restore_search(search: Search, kept: Arrays) -> None:
    """Give a best-first search to which the same economies were added what had been found."""
    search.store.restore(within("store", kept))
    search.pairs.restore(within("pairs", kept))
    search.opened.restore(within("opened", kept))
    search.top = kept["top"].tolist()
    task, node = (search.pairs[x][: search.pairs.count] for x in ("task", "node"))
    search.pair_of = [np.full(size, -1, np.int32) for size in kept["known"].tolist()]
    for q, table in enumerate(search.pair_of):
        mine = np.flatnonzero(task == q)
        mine = mine[mine > 0]  # pair 0 is of no node
        table[node[mine]] = mine


def graph_state(graph: Graph) -> Arrays:
    """All that a search on a process has found."""
    found = {
        "bytes": np.array(graph.bytes),
        "ill": np.array(graph.ill),
        "epoch": np.array(graph.epoch),
        "own": np.array(graph.own, np.int64),
        "word": graph.word,
        **named("offers", _offers_state(graph.offers)),
    }
    for t, part in enumerate(graph.nodes):
        rooms = [(k, nodes.count, nodes.room) for k, nodes in part.items()]
        found[f"places{t}"] = np.array(rooms, np.int64).reshape(-1, 3)
        for name in next(iter(part.values())).array if part else ():
            each = [nodes[name] for nodes in part.values()]
            found[f"nodes{t}/{name}"] = np.concatenate([x.ravel() for x in each])
            found[f"shape{t}/{name}"] = np.array([x.shape for x in each])
    return found


def restore_graph(graph: Graph, kept: Arrays) -> None:
    """Give a graph of the same process and tasks what had been found."""
    graph.bytes, graph.ill, graph.epoch = (kept[x].item() for x in ("bytes", "ill", "epoch"))
    graph.own, graph.word = kept["own"].tolist(), kept["word"]
    for task in graph.own:
        graph.keep_own_bounds(task)
    _restore_offers(graph.offers, within("offers", kept))
    for t, part in enumerate(graph.nodes):
        part.clear()
        flat, shapes, at = within(f"nodes{t}", kept), within(f"shape{t}", kept), {}
        for row, (number, count, room) in enumerate(kept[f"places{t}"].tolist()):
            arrays = {}
            for name, x in flat.items():
                shape, first = shapes[name][row].tolist(), at.get(name, 0)
                at[name] = first + int(np.prod(shape))
                arrays[name] = x[first : at[name]].reshape(shape)
            nodes = part[number] = Nodes(room, **arrays)
            nodes.append(**arrays)
            nodes.number = {word.tobytes(): k for k, word in enumerate(nodes["words"])}
            assert nodes.count == count


def _offers_state(offers: Offers) -> Arrays:
    found = {
        "clock": np.array(offers.clock),
        "kept": np.array(list(offers.kept), np.int64).reshape(-1, 2),
        "column": np.array(offers.column),
    }
    for t, part in enumerate(offers.listed):
        if not part:
            continue
        columns = [(k, a, x) for k, place in enumerate(part) for a, x in place.columns.items()]
        bounds = [(k, v, x) for k, place in enumerate(part) for v, x in place.bound.items()]
        found |= {
            f"memory{t}": np.stack([place.memory for place in part]),
            f"after{t}": np.stack([place.after for place in part]),
            f"times{t}": np.array([(place.changed, place.checked) for place in part]),
        }
        for name, rows in ((f"columns{t}", columns), (f"bounds{t}", bounds)):
            if rows:
                found[f"{name}/of"] = np.array([row[:2] for row in rows])
                found[f"{name}/is"] = np.stack([row[2] for row in rows])
    return found


def _restore_offers(offers: Offers, kept: Arrays) -> None:
    offers.column = list(kept["column"])
    offers.number_of = {row.tobytes(): k for k, row in enumerate(offers.column)}
    for t, part in enumerate(offers.listed):
        part.clear()
        offers.places[t].clear()
        if f"memory{t}" not in kept:
            continue
        rows = zip(*(kept[f"{x}{t}"] for x in ("memory", "after", "times")), strict=True)
        for number, (memory, after, times) in enumerate(rows):
            place = Place(number, memory, after)
            place.changed, place.checked = times.tolist()
            part.append(place)
            offers.places[t][memory.tobytes()] = place
        columns, bounds = (within(f"{x}{t}", kept) for x in ("columns", "bounds"))
        for (number, control), x in zip(*_rows(columns), strict=True):
            part[number].columns[control] = x
        for (number, variant), x in zip(*_rows(bounds), strict=True):
            part[number].bound[variant] = x
    offers.kept.clear()
    offers.used = 0
    for t, number in kept["kept"].tolist():
        offers.offer(t, offers.listed[t][number])
    offers.clock = int(kept["clock"])


def _rows(found: Arrays) -> tuple[list[Any], list[Any]]:
    return (found["of"].tolist(), list(found["is"])) if found else ([], [])
