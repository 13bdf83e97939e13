//! What becomes of a query: an answer from the names of containers, or the way to somebody else.

use super::message::{self, Data, Question, Refusal};
use super::zones::{Family, View, Zones};

/// What is to be done with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Reply(Vec<u8>),
    /// It is about no name of ours.
    Forward(Question),
    /// Nothing at all.
    Silence,
}

/// Judges a query that came from a container with this view. `limit` is a reply's largest size in bytes, `None`
/// for what the query itself allows; `turn` says which of several addresses comes first.
pub fn judge(zones: &Zones, view: &View, query: &[u8], limit: Option<usize>, turn: usize) -> Verdict {
    let question = match message::parse(query) {
        Ok(question) => question,
        Err(Refusal::Reply(reply)) => return Verdict::Reply(reply),
        Err(Refusal::Silence) => return Verdict::Silence,
    };
    let reply = |records: &[Data]| {
        let limit = limit.unwrap_or(question.limit);
        Verdict::Reply(message::reply(query, &question, message::NO_ERROR, records, limit))
    };
    let Some(name) = question.name.as_deref().filter(|_| question.is_internet) else {
        return Verdict::Forward(question);
    };
    let reversed = if question.kind == message::PTR { message::reversed(name) } else { None };
    if let Some(found) = reversed.and_then(|address| zones.reverse(view, address)) {
        return reply(&[Data::Name(found)]);
    }
    let family = match question.kind {
        message::A => Family::V4,
        message::AAAA => Family::V6,
        _ => Family::Both,
    };
    if let Some(mut addresses) = zones.resolve(view, name, family) {
        // A name of ours has addresses and nothing else: to say that it is not there, as whoever is behind us
        // would, makes resolvers forget its addresses too.
        if !matches!(question.kind, message::A | message::AAAA | message::ANY) {
            addresses.clear();
        }
        let turn = turn.checked_rem(addresses.len()).unwrap_or(0);
        addresses.rotate_left(turn);
        return reply(&addresses.into_iter().map(Data::Address).collect::<Vec<_>>());
    }
    // Compat: with `ndots` in force the client comes again with its search list.
    let is_plain = !name.is_empty() && !name.contains('.');
    if view.has_ndots && is_plain && matches!(question.kind, message::A | message::AAAA) {
        return reply(&[]);
    }
    Verdict::Forward(question)
}

#[cfg(test)]
mod tests {
    use super::super::zones::Seen;
    use super::*;
    use message::tests::query;

    #[test]
    fn queries_are_judged() {
        let mut zones = Zones::default();
        let addresses = ["10.0.0.2", "10.0.0.3", "fd00::2"].map(|text| text.parse().unwrap());
        zones.join("n", "c", &["web".to_owned()], &addresses);
        let mut view = View::default();
        view.networks.push(Seen { id: "n".to_owned(), name: "net".to_owned() });
        let ask = |view: &View, name: &str, kind, turn| {
            let query = query(name, kind, None);
            match judge(&zones, view, &query, None, turn) {
                Verdict::Reply(reply) => Some((reply[7], reply[query.len()..].to_vec())),
                Verdict::Forward(_) => None,
                Verdict::Silence => panic!("no word about {name}"),
            }
        };
        let first = |answer: Option<(u8, Vec<u8>)>| answer.unwrap().1[15];
        assert_eq!(ask(&view, "web", message::A, 0).unwrap().0, 2);
        assert_eq!(first(ask(&view, "web", message::A, 0)), 2);
        assert_eq!(first(ask(&view, "WEB", message::A, 1)), 3, "taken in turn");
        assert_eq!(ask(&view, "web.net", message::AAAA, 7).unwrap().0, 1);
        assert_eq!(ask(&view, "web", message::ANY, 0).unwrap().0, 3);
        assert_eq!(ask(&view, "web", 15, 0), Some((0, Vec::new())), "MX: there, with nothing of the kind");
        let (count, name) = ask(&view, "3.0.0.10.in-addr.arpa", message::PTR, 0).unwrap();
        assert_eq!((count, &name[12..]), (1, &b"\x03web\x03net\0"[..]));
        assert_eq!(ask(&view, "9.0.0.10.in-addr.arpa", message::PTR, 0), None);
        assert_eq!(ask(&view, "example.com", message::A, 0), None);
        assert_eq!(ask(&view, "plain", message::A, 0), None);
        view.has_ndots = true;
        assert_eq!(ask(&view, "plain", message::A, 0), Some((0, Vec::new())));
        assert_eq!(ask(&view, "example.com", message::A, 0), None);
        let mut chaos = query("web", message::A, None);
        *chaos.last_mut().unwrap() = 3;
        assert!(matches!(judge(&zones, &view, &chaos, None, 0), Verdict::Forward(_)));
    }
}
