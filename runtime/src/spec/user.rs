//! Who a container runs as. Every string is read once, in one form only: a
//! number that is not plain decimal is no number and no name either
//! (CVE-2024-40635, CVE-2026-46680).

use super::SpecError;
use super::defaults::MAX_ID;
use cri_proto::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::User;

/// An image's /etc/passwd and /etc/group; entries that make no sense are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Ids that the first process is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct ResolvedUser {
    pub uid: u32,
    pub gid: u32,
    /// The primary group first, the others in order.
    pub groups: Vec<u32>,
    pub home: String,
}

impl ResolvedUser {
    pub(super) fn to_oci(&self) -> User {
        let mut user = User::default();
        user.set_uid(self.uid)
            .set_gid(self.gid)
            .set_additional_gids(Some(self.groups.clone()));
        user
    }
}

impl Accounts {
    /// Reads both files' text.
    #[must_use]
    pub fn parse(passwd: &str, group: &str) -> Self {
        Self {
            users: passwd.lines().filter_map(account).collect(),
            groups: group.lines().filter_map(self::group).collect(),
        }
    }

    fn user(&self, name: &str) -> Option<&Account> {
        self.users.iter().find(|user| user.name == name)
    }

    fn uid(&self, uid: u32) -> Option<&Account> {
        self.users.iter().find(|user| user.uid == uid)
    }

    /// Groups that list the user as a member.
    fn memberships(&self, name: &str) -> impl Iterator<Item = u32> {
        let of = move |group: &&Group| group.members.iter().any(|m| m == name);
        self.groups.iter().filter(of).map(|group| group.gid)
    }
}

fn account(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, ..] = fields[..] else {
        return None;
    };
    let home = if home.starts_with('/') && !home.contains(char::is_control) {
        home
    } else {
        "/"
    };
    Some(Account {
        name: Some(name).filter(|n| !n.is_empty())?.to_owned(),
        uid: decimal(uid)?,
        gid: decimal(gid)?,
        home: home.to_owned(),
    })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members, ..] = fields[..] else {
        return None;
    };
    Some(Group {
        name: Some(name).filter(|n| !n.is_empty())?.to_owned(),
        gid: decimal(gid)?,
        members: members.trim().split(',').map(str::to_owned).collect(),
    })
}

/// Digits without leading zeros, within what Kubernetes takes.
fn decimal(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|id| *id <= MAX_ID)
}

/// An id as written in an image or a request.
enum Id<'a> {
    Number(u32),
    Name(&'a str),
}

/// `None`: it looks like a number and isn't one.
fn id(text: &str) -> Option<Id<'_>> {
    if let Some(number) = decimal(text) {
        return Some(Id::Number(number));
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit())
        || text.starts_with(['+', '-'])
        || ["0x", "0X", "0o", "0O", "0b", "0B"]
            .iter()
            .any(|p| text.starts_with(p));
    (!numeric && !text.contains(char::is_control)).then_some(Id::Name(text))
}

pub(super) fn resolve(
    security: &LinuxContainerSecurityContext,
    image: &ImageConfiguration,
    accounts: &Accounts,
) -> Result<ResolvedUser, SpecError> {
    let (user, group) = requested(security, image)?;
    let (uid, account) = find_user(&user, accounts)?;
    let gid = match group.as_deref() {
        Some(group) => find_group(group, accounts)?,
        None => account.map_or(0, |a| a.gid),
    };
    let mut groups: Vec<u32> = Vec::new();
    if security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge
        && let Some(account) = account
    {
        groups.extend(accounts.memberships(&account.name));
    }
    for &group in &security.supplemental_groups {
        groups.push(in_range(group).ok_or_else(|| SpecError::Group {
            group: group.to_string(),
            reason: "not within 0 to 2147483647",
        })?);
    }
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|g| *g != gid);
    groups.insert(0, gid);
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home: account.map_or_else(|| "/".to_owned(), |a| a.home.clone()),
    })
}

/// The request's user and group, else the image's.
fn requested(
    security: &LinuxContainerSecurityContext,
    image: &ImageConfiguration,
) -> Result<(String, Option<String>), SpecError> {
    let group = security.run_as_group.as_ref().map(|g| g.value.to_string());
    if let Some(user) = &security.run_as_user {
        return Ok((user.value.to_string(), group));
    }
    if !security.run_as_username.is_empty() {
        return Ok((security.run_as_username.clone(), group));
    }
    if group.is_some() {
        return Err(SpecError::GroupWithoutUser);
    }
    let text = image.config().as_ref().and_then(|c| c.user().clone());
    let text = text.unwrap_or_default();
    Ok(match text.split_once(':') {
        Some((user, group)) => (
            user.to_owned(),
            Some(group.to_owned()).filter(|g| !g.is_empty()),
        ),
        None => (text, None),
    })
}

fn find_user<'a>(
    user: &str,
    accounts: &'a Accounts,
) -> Result<(u32, Option<&'a Account>), SpecError> {
    let fail = |reason| SpecError::User {
        user: user.to_owned(),
        reason,
    };
    if user.is_empty() {
        return Ok((0, accounts.uid(0)));
    }
    match id(user).ok_or_else(|| fail("not a plain number within 0 to 2147483647"))? {
        Id::Number(uid) => Ok((uid, accounts.uid(uid))),
        Id::Name(name) => {
            let account = accounts.user(name);
            let account = account.ok_or_else(|| fail("not in the image's /etc/passwd"))?;
            Ok((account.uid, Some(account)))
        }
    }
}

fn find_group(group: &str, accounts: &Accounts) -> Result<u32, SpecError> {
    let fail = |reason| SpecError::Group {
        group: group.to_owned(),
        reason,
    };
    match id(group).ok_or_else(|| fail("not a plain number within 0 to 2147483647"))? {
        Id::Number(gid) => Ok(gid),
        Id::Name(name) => {
            let found = accounts.groups.iter().find(|g| g.name == name);
            found
                .map(|g| g.gid)
                .ok_or_else(|| fail("not in the image's /etc/group"))
        }
    }
}

fn in_range(id: i64) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| *id <= MAX_ID)
}

/// Who an image's user is by damaged accounts, or with a damaged name.
#[cfg(test)]
pub fn fuzzed(user: &str, accounts: &Accounts) {
    let config = oci_spec::image::ConfigBuilder::default().user(user).build();
    let mut image = ImageConfiguration::default();
    image.set_config(config.ok());
    let security = LinuxContainerSecurityContext::default();
    let Ok(found) = resolve(&security, &image, accounts) else {
        return;
    };
    let ids = [found.uid, found.gid];
    assert!(ids.iter().chain(&found.groups).all(|id| *id <= MAX_ID));
    assert_eq!(found.groups.first(), Some(&found.gid));
    assert!(found.home.starts_with('/') && !found.home.contains(char::is_control));
    // A number is the number it says, whatever the accounts say.
    if let Ok(number) = user.parse::<u32>() {
        assert_eq!(user, number.to_string());
        assert_eq!(found.uid, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1::Int64Value;
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        www-data:x:33:33:w:/var/www:/bin/sh\n\
        4294967296:x:0:0::/:/bin/sh\n0x10:x:0:0::/:/bin/sh\n00:x:0:0::/:/bin/sh\n\
        default-user:x:1000:1000::/home/du:/bin/sh\nbroken:x:nonsense:0::/:\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:www-data,root\nin-image:x:50000:default-user\n";

    fn image(user: &str) -> ImageConfiguration {
        let config = ConfigBuilder::default().user(user).build().expect("config");
        let image = ImageConfigurationBuilder::default().config(config);
        image
            .architecture("amd64")
            .os("linux")
            .build()
            .expect("image")
    }

    fn as_image_user(user: &str) -> Result<ResolvedUser, SpecError> {
        let accounts = Accounts::parse(PASSWD, GROUP);
        resolve(
            &LinuxContainerSecurityContext::default(),
            &image(user),
            &accounts,
        )
    }

    #[test]
    fn cve_2024_40635_and_2026_46680_odd_numbers_are_refused_even_when_passwd_has_them() {
        for user in [
            "4294967296",
            "2147483648",
            "0x10",
            "00",
            "-1",
            "+0",
            "007",
            "broken",
        ] {
            assert!(as_image_user(user).is_err(), "{user}");
        }
        assert!(as_image_user("0:4294967296").is_err());
    }

    #[test]
    fn cve_2022_4318_home_with_control_characters_is_dropped() {
        let passwd =
            "a:x:5:5::/home/a\\n:/bin/sh\nb:x:6:6::/ho\tme:/bin/sh\nc:x:7:7::home:/bin/sh\n";
        let accounts = Accounts::parse(passwd, "");
        let home = |user: &str| {
            let security = LinuxContainerSecurityContext::default();
            resolve(&security, &image(user), &accounts)
                .expect("user")
                .home
        };
        // A backslash and an n are two ordinary characters.
        assert_eq!(home("a"), "/home/a\\n");
        assert_eq!((home("b"), home("c")), ("/".to_owned(), "/".to_owned()));
    }

    #[test]
    fn image_user_is_found_by_name_and_by_number() {
        let user = as_image_user("www-data").expect("user");
        assert_eq!((user.uid, user.gid, user.groups), (33, 33, vec![33, 4]));
        assert_eq!(user.home, "/var/www");
        let user = as_image_user("1003:1004").expect("user");
        assert_eq!((user.uid, user.gid, user.groups), (1003, 1004, vec![1004]));
        let user = as_image_user("www-data:adm").expect("user");
        assert_eq!((user.uid, user.gid), (33, 4));
        assert_eq!(as_image_user("").expect("root").home, "/root");
    }

    #[test]
    fn cve_2023_25173_policy_decides_whether_the_images_groups_count() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        let mut security = LinuxContainerSecurityContext {
            supplemental_groups: vec![1234],
            ..Default::default()
        };
        let merged = resolve(&security, &image("1000"), &accounts).expect("merge");
        assert_eq!(merged.groups, [1000, 1234, 50000]);
        security.set_supplemental_groups_policy(SupplementalGroupsPolicy::Strict);
        let strict = resolve(&security, &image("1000"), &accounts).expect("strict");
        assert_eq!(strict.groups, [1000, 1234]);
    }

    #[test]
    fn group_without_user_is_refused() {
        let security = LinuxContainerSecurityContext {
            run_as_group: Some(Int64Value { value: 5 }),
            ..Default::default()
        };
        let result = resolve(&security, &image("33"), &Accounts::default());
        assert!(matches!(result, Err(SpecError::GroupWithoutUser)));
    }

    #[test]
    fn request_wins_over_the_image() {
        let security = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 1001 }),
            run_as_group: Some(Int64Value { value: 1002 }),
            ..Default::default()
        };
        let user = resolve(&security, &image("33"), &Accounts::default()).expect("user");
        assert_eq!((user.uid, user.gid), (1001, 1002));
    }
}
