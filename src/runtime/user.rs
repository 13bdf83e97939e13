//! Whom a process runs as: Docker's `user[:group]` looked up in the image's own passwd and group files.
//!
//! Pure functions on the files' bytes; init reads them after pivot_root, where no link can lead out. A file
//! is hostile input: lines that make no sense are skipped, as libc does.
//!
//! Sources: passwd(5), group(5), Engine API `ContainerConfig.User`.

use std::str;

/// The numbers a process gets, and where its home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first: without it a process could drop a group that denies it
    /// access (CVE-2022-36109).
    pub groups: Vec<u32>,
    pub home: String,
}

const MAX_ID: u32 = i32::MAX as u32;

struct Entry<'a> {
    name: &'a str,
    id: u32,
    /// A user's primary group; unused in groups.
    gid: u32,
    /// A user's home, or a group's members separated by commas.
    rest: &'a str,
}

/// Finds `user` (`""`, `name`, `uid`, each with an optional `:group` or `:gid`) and the groups of
/// `group_add` in the two files. All digits are always an id, never a name; the first matching line wins.
///
/// # Errors
/// The text Docker's clients know: `unable to find user x: no matching entries in passwd file`.
pub fn resolve(user: &str, group_add: &[String], passwd: &[u8], group: &[u8]) -> Result<Identity, String> {
    let (user, explicit_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let wanted = if user.is_empty() { Some(0) } else { number(user)? };
    let found = users(passwd).find(|entry| match wanted {
        Some(id) => entry.id == id,
        None => entry.name == user,
    });
    let (uid, mut gid, home) = match (&found, wanted) {
        (Some(entry), _) => (entry.id, entry.gid, entry.rest),
        (None, Some(id)) => (id, 0, ""),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let mut groups = Vec::new();
    match (explicit_group, &found) {
        (Some(name), _) => gid = find_group(name, group)?,
        (None, Some(entry)) => {
            let member = |line: &Entry<'_>| line.rest.split(',').any(|member| member == entry.name);
            groups.extend(self::groups(group).filter(member).map(|line| line.id));
        }
        (None, None) => {}
    }
    for name in group_add {
        groups.push(find_group(name, group)?);
    }
    if uid > MAX_ID || gid > MAX_ID {
        return Err(format!("uids and gids must be in range 0-{MAX_ID}"));
    }
    Ok(Identity { uid, gid, groups: unique(gid, groups), home: home_or_root(home) })
}

/// An identity given by number; only the home is looked up.
pub fn by_number(uid: u32, gid: u32, additional_gids: &[u32], passwd: &[u8]) -> Identity {
    let home = users(passwd).find(|entry| entry.id == uid).map_or("", |entry| entry.rest);
    Identity { uid, gid, groups: unique(gid, additional_gids.to_vec()), home: home_or_root(home) }
}

fn home_or_root(home: &str) -> String {
    if home.is_empty() { "/".to_owned() } else { home.to_owned() }
}

fn unique(gid: u32, groups: Vec<u32>) -> Vec<u32> {
    let mut unique = vec![gid];
    for group in groups {
        if !unique.contains(&group) {
            unique.push(group);
        }
    }
    unique
}

fn find_group(name: &str, group: &[u8]) -> Result<u32, String> {
    let wanted = number(name)?;
    let found = groups(group).find(|entry| match wanted {
        Some(id) => entry.id == id,
        None => entry.name == name,
    });
    match (found, wanted) {
        (Some(entry), _) => Ok(entry.id),
        (None, Some(id)) => Ok(id),
        (None, None) => Err(format!("unable to find group {name}: no matching entries in group file")),
    }
}

/// The id an all-digit text is, `None` for a name.
fn number(text: &str) -> Result<Option<u32>, String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(format!("uids and gids must be in range 0-{MAX_ID}")),
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect())
}

fn users(passwd: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(passwd).filter_map(|fields| match fields[..] {
        [name, _, uid, gid, ..] if !name.is_empty() => Some(Entry {
            name,
            id: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            rest: fields.get(5).copied().unwrap_or_default(),
        }),
        _ => None,
    })
}

fn groups(group: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(group).filter_map(|fields| match fields[..] {
        [name, _, gid, ..] if !name.is_empty() => Some(Entry {
            name,
            id: gid.parse().ok()?,
            gid: 0,
            rest: fields.get(3).copied().unwrap_or_default(),
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\n\nbroken line\nweb:x:33:33::/var/www:\n\
        web:x:34:34::/second:\n1000:x:77:77::/digits:\nbad:x:many:1::/:\nbig:x:4294967295:1::/:\nhomeless:x:5:6\n";
    const GROUP: &[u8] = b"root:x:0:root\nwww:x:33:\ndisk:x:6:root,web\naudio:x:29:web\ndup:x:33:web\n";

    fn find(user: &str, group_add: &[&str]) -> Result<Identity, String> {
        let group_add: Vec<String> = group_add.iter().map(|&name| name.to_owned()).collect();
        resolve(user, &group_add, PASSWD, GROUP)
    }

    fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
        Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn every_form_of_user_is_found() {
        assert_eq!(find("", &[]).unwrap(), identity(0, 0, &[0, 6], "/root"));
        assert_eq!(find("web", &[]).unwrap(), identity(33, 33, &[33, 6, 29], "/var/www"));
        assert_eq!(find("33", &[]).unwrap(), identity(33, 33, &[33, 6, 29], "/var/www"));
        assert_eq!(find("web:disk", &[]).unwrap(), identity(33, 6, &[6], "/var/www"));
        assert_eq!(find("web:4242", &[]).unwrap(), identity(33, 4242, &[4242], "/var/www"));
        assert_eq!(find("4242", &[]).unwrap(), identity(4242, 0, &[0], "/"));
        assert_eq!(find(":disk", &[]).unwrap(), identity(0, 6, &[6], "/root"));
        assert_eq!(find("homeless", &[]).unwrap(), identity(5, 6, &[6], "/"));
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(find("1000", &[]).unwrap().uid, 1000);
    }

    #[test]
    fn added_groups_by_name_must_exist() {
        assert_eq!(find("4242", &["audio", "777"]).unwrap().groups, [0, 29, 777]);
        let missing = find("", &["nope"]).unwrap_err();
        assert_eq!(missing, "unable to find group nope: no matching entries in group file");
    }

    #[test]
    fn unknown_names_and_wild_numbers_are_refused() {
        let missing = find("nope", &[]).unwrap_err();
        assert_eq!(missing, "unable to find user nope: no matching entries in passwd file");
        assert!(find("bad", &[]).is_err());
        assert!(find("big", &[]).unwrap_err().contains("range"));
        assert!(find("2147483648", &[]).unwrap_err().contains("range"));
        assert!(find("0:99999999999999999999", &[]).unwrap_err().contains("range"));
        assert!(resolve("web", &[], b"", b"").is_err());
    }

    #[test]
    fn files_of_noise_are_no_users() {
        let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert_eq!(resolve("7", &[], &noise, &noise).unwrap(), identity(7, 0, &[0], "/"));
        assert!(resolve("x", &[], &noise, &noise).is_err());
    }
}
