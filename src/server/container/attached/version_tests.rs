use proptest::prelude::*;

use super::*;

const STEPS: SizeChange = SizeChange::InSteps {
    apart: Duration::ZERO,
    silence: Duration::MAX,
};

fn follow(present: &mut Option<Version>, text: &[u8], change: SizeChange) -> (Vec<u8>, usize) {
    let version = Version::follow(present, text, Instant::now(), false, change, |_| {});
    (version.text.to_vec(), version.size)
}

fn shown(present: &mut Option<Version>, texts: &[&str]) -> Vec<(String, usize)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_default();
    let step = |one: &&str| follow(present, one.as_bytes(), STEPS);
    let steps = texts.iter().map(step);
    steps.map(|(bytes, size)| (text(bytes), size)).collect()
}

#[test]
fn a_view_that_grows_shows_its_text_with_the_new_size_first() {
    let steps = shown(&mut None, &["9", "10", "11", "12"]);
    let wanted = [("9", 1), ("9", 2), ("11", 2), ("12", 2)];
    assert_eq!(steps, wanted.map(|(text, size)| (text.to_owned(), size)));
}

#[test]
fn a_view_that_shrinks_shows_its_new_text_with_the_size_before_first() {
    let steps = shown(&mut None, &["10", "9", "8", "7"]);
    let wanted = [("10", 2), ("9", 2), ("8", 1), ("7", 1)];
    assert_eq!(steps, wanted.map(|(text, size)| (text.to_owned(), size)));
}

#[test]
fn a_view_that_says_the_same_again_ends_its_change() {
    let steps = shown(&mut None, &["10", "9", "9", "9"]);
    let wanted = [("10", 2), ("9", 2), ("9", 1), ("9", 1)];
    assert_eq!(steps, wanted.map(|(text, size)| (text.to_owned(), size)));
    let steps = shown(&mut None, &["9", "10", "9", "9"]);
    let wanted = [("9", 1), ("9", 2), ("9", 1), ("9", 1)];
    assert_eq!(steps, wanted.map(|(text, size)| (text.to_owned(), size)));
}

#[test]
fn after_a_silence_text_and_size_change_at_once() {
    let change = SizeChange::InSteps {
        apart: Duration::MAX,
        silence: Duration::ZERO,
    };
    let mut present = None;
    follow(&mut present, b"9", change);
    // Even then no step follows another one too soon.
    assert_eq!(follow(&mut present, b"10", change), (b"9".to_vec(), 1));
    let change = SizeChange::InSteps {
        apart: Duration::ZERO,
        silence: Duration::ZERO,
    };
    assert_eq!(follow(&mut present, b"10", change), (b"10".to_vec(), 2));
    assert_eq!(follow(&mut present, b"9", change), (b"9".to_vec(), 1));
}

#[test]
fn a_changed_limit_shows_at_once() {
    let apart = SizeChange::InSteps {
        apart: Duration::MAX,
        silence: Duration::MAX,
    };
    let mut present = None;
    follow(&mut present, b"9", apart);
    assert_eq!(follow(&mut present, b"10", apart), (b"9".to_vec(), 1));
    present.as_mut().unwrap().set_stale();
    assert_eq!(follow(&mut present, b"10", apart), (b"10".to_vec(), 2));
    present.as_mut().unwrap().set_stale();
    // Nothing is cut by a text that is shorter than its size.
    assert_eq!(follow(&mut present, b"9", apart), (b"9".to_vec(), 2));
}

#[test]
fn the_version_of_a_server_before_is_followed_in_steps_and_not_believed() {
    let mut present = Some(Version::restored(
        b"9".as_slice().into(),
        1,
        SystemTime::now(),
    ));
    assert_eq!(present.as_ref().unwrap().age(), Duration::MAX);
    assert_eq!(follow(&mut present, b"10", STEPS), (b"9".to_vec(), 2));
    assert_eq!(follow(&mut present, b"10", STEPS), (b"10".to_vec(), 2));
}

#[test]
fn a_version_is_saved_when_it_says_something_else() {
    let mut present = None;
    let mut saved = 0;
    for text in ["9", "9", "10", "10", "10"] {
        let save = |_: &Version| saved += 1;
        let now = Instant::now();
        Version::follow(&mut present, text.as_bytes(), now, false, STEPS, save);
    }
    // 9 of size 1, 9 of size 2, 10.
    assert_eq!(saved, 3);
}

proptest! {
    /// Whatever the lengths are: a reader with the page of one version and the size of the next, or the other way round, gets
    /// a whole text and newlines; and no text is more than one step behind.
    #[test]
    fn no_step_can_cut_a_text(lengths in proptest::collection::vec(1usize..6, 2..40)) {
        let mut present = None;
        let mut before: Option<(Vec<u8>, usize)> = None;
        for (number, length) in lengths.iter().enumerate() {
            let text = vec![b'a' + u8::try_from(number % 26).unwrap_or(0); *length];
            let (shown, size) = follow(&mut present, &text, STEPS);
            prop_assert!(shown.len() <= size);
            if let Some((last, last_size)) = before {
                prop_assert!(shown.len() <= last_size && last.len() <= size);
            }
            let behind = [number, number.saturating_sub(1), number.saturating_sub(2)];
            let is_recent = behind.iter().any(|number| shown[0] == b'a' + u8::try_from(number % 26).unwrap_or(0));
            prop_assert!(is_recent, "{number}: {shown:?}");
            before = Some((shown, size));
        }
    }

    /// A view whose length stays as it is shows its text after two steps, with its own size after three.
    #[test]
    fn a_change_of_size_ends(lengths in proptest::collection::vec(1usize..6, 1..10), last in 1usize..6) {
        let mut present = None;
        for length in lengths {
            follow(&mut present, &vec![b'a'; length], STEPS);
        }
        let text = vec![b'z'; last];
        follow(&mut present, &text, STEPS);
        let (shown, _) = follow(&mut present, &text, STEPS);
        prop_assert_eq!(&shown, &text);
        prop_assert_eq!(follow(&mut present, &text, STEPS), (text.clone(), last));
    }
}
