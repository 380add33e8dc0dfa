import pytest

from results.notes import PAPER_RANKS
from results.paper import TABLE_II, TABLE_III
from trainables.config import PAPER_ENCODERS


def test_the_papers_rows_go_by_the_projects_names() -> None:
    assert tuple(TABLE_II) == PAPER_ENCODERS
    assert set(TABLE_III) < set(PAPER_ENCODERS)


@pytest.mark.parametrize("encoder", PAPER_ENCODERS)
def test_no_row_of_table_two_has_a_dice_that_its_iou_allows(encoder: str) -> None:
    assert TABLE_II[encoder].dice > TABLE_II[encoder].largest_dice + 0.016


def test_inception_overtakes_seresnet_in_the_paper() -> None:
    search, full = zip(*(PAPER_RANKS[name] for name in ("inceptionv3", "seresnet50")), strict=True)
    assert search[0] < search[1]
    assert full[0] > full[1]
