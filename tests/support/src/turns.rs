//! The order in which benchmarks take turns.

/// Returns the numbers from 0 to `ways`, `rounds` times each, in an order in which each comes about equally often right
/// after each other one. What runs before matters: the kernel still takes down the container of it.
///
/// A round begins with 0, 1, -1, 2, -2 and so on, so that all differences between neighbours occur, and each round is the
/// one before with 1 added. With an odd number of ways each second cycle of rounds goes backwards.
pub fn in_turn(ways: usize, rounds: usize) -> impl Iterator<Item = usize> {
    (0..rounds).flat_map(move |round| {
        (0..ways).map(move |place| {
            let is_backwards = round / ways % 2 == 1;
            let place = if is_backwards {
                ways - 1 - place
            } else {
                place
            };
            let step = match place % 2 {
                0 => ways - place / 2,
                _ => place.div_ceil(2),
            };
            (step + round) % ways
        })
    })
}

#[cfg(test)]
mod tests {
    use super::in_turn;

    #[test]
    fn each_way_has_as_many_turns_and_comes_equally_often_after_each_other_one_in_its_round() {
        for ways in 1..8 {
            let rounds = ways * 4;
            let order: Vec<usize> = in_turn(ways, rounds).collect();
            let mut after = vec![vec![0; ways]; ways];
            for round in order.chunks(ways) {
                let mut sorted = round.to_vec();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..ways), "{round:?}");
                round
                    .windows(2)
                    .for_each(|pair| after[pair[0]][pair[1]] += 1);
            }
            for (way, row) in after.iter().enumerate() {
                for (other, count) in row.iter().enumerate() {
                    let wanted = if way == other { 0 } else { 4 };
                    assert_eq!(*count, wanted, "{ways} ways: {way} before {other}");
                }
            }
        }
    }
}
