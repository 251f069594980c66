//! Any bytes as the first of a connection that was allowed for a name.
//!
//! Invariants: what is said of a beginning stays said, however much follows; a verdict comes within the limit; why is one line.

use network::core::first_bytes::{FIRST_BYTES_MAX, Verdict, judge};

const NAME: &str = "api.example.org";

pub fn run(input: &[u8]) -> bool {
    let whole = judge(input, NAME);
    assert!(whole != Verdict::More || input.len() < FIRST_BYTES_MAX);
    let mut length = 0;
    while length < input.len() {
        let part = judge(input.get(..length).unwrap_or_default(), NAME);
        // Which of two reasons is said first is another matter.
        let stays = match &part {
            Verdict::More => true,
            Verdict::Agrees => whole == Verdict::Agrees,
            Verdict::Refused(_) => matches!(whole, Verdict::Refused(_)),
        };
        assert!(stays, "{part:?} at {length}, {whole:?} at last");
        // Every length at first, fewer and fewer then.
        length += 1 + length / 64;
    }
    if let Verdict::Refused(why) = &whole {
        super::check::one_line(&why.text(NAME));
    }
    whole == Verdict::Agrees
}
