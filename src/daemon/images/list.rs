//! `docker images`: which images there are, and which of them the caller asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::{Image, ImageId, Reference, Store, seconds};
use crate::daemon::error::{Error, Result};
use crate::http::api::Filters;
use crate::http::api::image::ImageSummary;

impl Store {
    /// The images that pass the filters, newest first. `all` shows those too that are only another's parent.
    /// `containers` counts an image's containers; `shared` has the bytes counted that images have in common.
    pub fn list(
        &self,
        all: bool,
        shared: bool,
        filters: &Filters,
        containers: &dyn Fn(&ImageId) -> i64,
    ) -> Result<Vec<ImageSummary>> {
        if let Some(key) = filters.unknown(&["dangling", "label", "before", "since", "reference", "until"]) {
            return Err(Error::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = boolean(filters, "dangling")?;
        let until = until(filters)?;
        let bound = |key: &str, pick: fn(i64, i64) -> i64| -> Result<Option<i64>> {
            let mut bound = None;
            for name in filters.get(key) {
                let created = seconds(&self.resolve(name)?.config.created);
                bound = Some(bound.map_or(created, |other| pick(other, created)));
            }
            Ok(bound)
        };
        let (before, since) = (bound("before", i64::min)?, bound("since", i64::max)?);
        let images = self.images();
        let parents: BTreeSet<_> = images.iter().filter_map(|image| image.parent.clone()).collect();
        let shared = if shared { self.shared_sizes(&images)? } else { BTreeMap::new() };
        let mut summaries = Vec::new();
        for image in &images {
            let created = seconds(&image.config.created);
            let mut names = self.references_of(&image.id);
            let was_named = !names.is_empty();
            if !filters.get("reference").is_empty() {
                names.retain(|name| filters.get("reference").iter().any(|pattern| matches(pattern, name)));
            }
            let is_shown = dangling.is_none_or(|dangling| dangling != was_named)
                && before.is_none_or(|before| created < before)
                && since.is_none_or(|since| created > since)
                && until.is_none_or(|until| created < until)
                && labels_match(filters.get("label"), &image.defaults().labels)
                && (filters.get("reference").is_empty() || !names.is_empty())
                && (all || was_named || !parents.contains(&image.id));
            if is_shown {
                let mut summary = summary(image, &names, containers(&image.id));
                summary.shared_size = shared.get(&image.id).copied().unwrap_or(-1);
                summaries.push(summary);
            }
        }
        summaries.sort_by(|one, other| (other.created, &one.id).cmp(&(one.created, &other.id)));
        Ok(summaries)
    }

    /// Of each image the bytes in layers that another one has too.
    fn shared_sizes(&self, images: &[Image]) -> Result<BTreeMap<ImageId, i64>> {
        let layers_of = |image: &Image| image.config.rootfs.diff_ids.iter().cloned().collect::<BTreeSet<_>>();
        let mut users: BTreeMap<_, usize> = BTreeMap::new();
        for image in images {
            for layer in layers_of(image) {
                *users.entry(layer).or_default() += 1;
            }
        }
        let mut sizes = BTreeMap::new();
        for image in images {
            let mut size = 0;
            for layer in layers_of(image).iter().filter(|layer| users[*layer] > 1) {
                size += self.layer(layer)?.size.cast_signed();
            }
            sizes.insert(image.id.clone(), size);
        }
        Ok(sizes)
    }

    /// Bytes of all layers' files, each layer counted once.
    pub fn layers_size(&self) -> u64 {
        self.lock().layers_size(self)
    }
}

/// The filters `label` and `label!` of a prune: all of the first must fit, not all of the second may.
pub fn prune_labels_match(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let unwanted = filters.get("label!");
    labels_match(filters.get("label"), labels) && (unwanted.is_empty() || !labels_match(unwanted, labels))
}

fn summary(image: &Image, names: &[Reference], containers: i64) -> ImageSummary {
    let (tags, digests): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.tag().is_some());
    ImageSummary {
        containers,
        created: seconds(&image.config.created),
        id: image.id.to_string(),
        labels: image.defaults().labels.clone(),
        parent_id: image.parent.as_ref().map(ImageId::to_string).unwrap_or_default(),
        repo_digests: digests.into_iter().map(Reference::familiar).collect(),
        repo_tags: tags.into_iter().map(Reference::familiar).collect(),
        shared_size: -1,
        size: image.size.cast_signed(),
    }
}

/// A filter that is true or false, said at most one way.
pub(super) fn boolean(filters: &Filters, key: &str) -> Result<Option<bool>> {
    filters.boolean(key).map_err(Error::invalid)
}

/// `until`: an RFC 3339 time, seconds since 1970, or a duration before now (`24h`).
pub fn until(filters: &Filters) -> Result<Option<i64>> {
    let [value] = filters.get("until") else {
        return match filters.get("until") {
            [] => Ok(None),
            _ => Err(Error::invalid("more than one until filter specified")),
        };
    };
    let relative = || {
        crate::daemon::dockerfile::duration(value)
            .map(|nanos| jiff::Timestamp::now().as_second() - nanos / 1_000_000_000)
    };
    value
        .parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_second)
        .ok()
        .or_else(|| value.parse::<f64>().ok().map(|seconds| seconds as i64))
        .or_else(relative)
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("invalid filter 'until={value}'")))
}

pub(super) fn label_matches(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|present| present == value),
        None => labels.contains_key(wanted),
    }
}

pub(super) fn labels_match(wanted: &[String], labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|wanted| label_matches(wanted, labels))
}

/// Whether the pattern fits the reference's short spelling, or its name alone.
fn matches(pattern: &str, reference: &Reference) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    [reference.familiar(), reference.familiar_name(), reference.to_string()]
        .iter()
        .any(|text| glob(&pattern, &text.chars().collect::<Vec<_>>()))
}

/// Go's `path.Match`: `*` and `?` stand for anything but `/`, `[a-z]` and `[^x]` for one letter, `\\` takes the next
/// literally. A pattern that is none fits nothing.
fn glob(pattern: &[char], text: &[char]) -> bool {
    // Where to go on when what follows the last star does not fit: one more letter for the star.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut seen) = (0, 0);
    while seen < text.len() {
        if pattern.get(at) == Some(&'*') {
            retry = Some((at + 1, seen));
            at += 1;
            continue;
        }
        if let Some(length) = one(&pattern[at..], text[seen]) {
            (at, seen) = (at + length, seen + 1);
            continue;
        }
        match retry {
            Some((after, from)) if text[from] != '/' => {
                retry = Some((after, from + 1));
                (at, seen) = (after, from + 1);
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

/// How much of the pattern's start stands for `letter`, if it does.
fn one(pattern: &[char], letter: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => (letter != '/').then_some(1),
        '\\' => (*pattern.get(1)? == letter).then_some(2),
        '[' => {
            let mut at = 1;
            let negated = *pattern.get(at)? == '^';
            at += usize::from(negated);
            let literal = |at: &mut usize| -> Option<char> {
                match *pattern.get(*at)? {
                    '-' | ']' => return None,
                    '\\' => *at += 1,
                    _ => {}
                }
                *at += 1;
                pattern.get(*at - 1).copied()
            };
            let (mut fits, first) = (false, at);
            while at == first || *pattern.get(at)? != ']' {
                let low = literal(&mut at)?;
                let high = match *pattern.get(at)? {
                    '-' => {
                        at += 1;
                        literal(&mut at)?
                    }
                    _ => low,
                };
                fits |= (low..=high).contains(&letter);
            }
            (fits != negated).then_some(at + 1)
        }
        other => (other == letter).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, text, wanted) in [
            ("busybox", "busybox:1", true),
            ("busy*", "busybox:1", true),
            ("*:1", "busybox:1", true),
            ("busybox:?", "busybox:1", true),
            ("*", "me/tool:1", false),
            ("*/*", "me/tool:1", true),
            ("m*l:1", "me/tool:1", false),
            ("docker.io/library/busybox:1", "busybox:1", true),
            ("usy*", "busybox:1", false),
            ("[a-c]usybox", "busybox:1", true),
            ("[^a-c]usybox", "busybox:1", false),
            ("b[tu]*:[0-9]", "busybox:1", true),
            ("b[u", "busybox:1", false),
            ("b\\usybox", "busybox:1", true),
            ("bu*y[]b]*", "busybox:1", false),
        ] {
            assert_eq!(matches(pattern, &Reference::parse(text).unwrap()), wanted, "{pattern} {text}");
        }
    }
}
