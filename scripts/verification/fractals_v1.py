"""The tables of the first data set."""

from scripts.verification.cells import V1, Row, ended, last, lr_of, spread, top1
from scripts.verification.runs import load


def over_seeds(group: str, prefix: str) -> Row:
    every = [p for p in (V1 / group).glob(f"{prefix}-seed*")]
    done = [p for p in every if ended(p)]
    n = str(len(every)) + (f", {len(every) - len(done)} diverged" if len(done) < len(every) else "")
    done.sort()
    return [n, spread([last(p) for p in done]), spread([max(top1(p)) for p in done])]


def rows(row: Row) -> Row:
    prefix = f"{row[0]}-{row[1].lower()}"
    return [*row[:2], f"{lr_of(V1 / 'rows' / f'{prefix}-seed0'):g}", *over_seeds("rows", prefix)]


def best(row: Row) -> Row:
    return [*row[:3], *over_seeds("best", f"{row[0]}-{row[1].lower()}-lr{row[2]}")]


def lr(row: Row) -> Row:
    found = sorted((V1 / "lr").glob(f"{row[0]}-{row[1].lower()}-lr*"), key=lr_of)
    return [*row[:2], ", ".join(f"{lr_of(p):g}: {f'{last(p):.1f}' if ended(p) else '-'}" for p in found)]


def recipes(row: Row) -> Row:
    found = sorted((V1 / "recipes").glob(f"{row[0]}-*"), key=lambda p: load(p)[0]["batch"]["published"])
    cells = []
    for p in found:
        stopped = len(top1(p)) < load(p)[0]["epochs"]
        text = f"{last(p):.1f}" + (f" (epoch {len(top1(p))})" if stopped else "")
        cells.append(f"`{p.name.partition('-')[2]}` {text if ended(p) else 'diverged'}")
    return [row[0], ", ".join(cells).strip("`")]


def resnet50(row: Row) -> Row:
    end = load(V1 / "resnet50" / row[0])[1][-1]
    return [row[0], f"{end['val_top1']:.1f}", f"{end['val_loss']:.2f}", f"{end['train_loss']:.2f}"]
