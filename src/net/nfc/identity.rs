//! What tells a disk from another one by the same name: values of its data base.
//!
//! `uuid` belongs to the disk and stays whoever writes to it. `longContentID` is another one after the first write of
//! everybody who opened the disk for writing, so that it tells those who only read whether what is there is what was there.
//! To who writes it tells nothing: the change may be his own.

/// The disk's own id.
const UUID: &str = "uuid";
/// That of its content.
const CONTENT: &str = "longContentID";

/// Longest id that is compared; usual ones have 32 digits.
const LONGEST: usize = 64;

/// What a holder of a disk says that it is. Parts that he does not tell are equal to everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    uuid: Option<String>,
    content: Option<String>,
}

impl Identity {
    /// From pairs of the disk's data base. Who writes to the disk is not told by its content.
    pub fn of(database: &[(String, String)], write: bool) -> Identity {
        let value = |key: &str| {
            let found = database.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
            found.and_then(|(_, value)| plain(value))
        };
        Identity { uuid: value(UUID), content: value(CONTENT).filter(|_| !write) }
    }

    /// The keys that there is something to compare with.
    pub fn keys(&self) -> Vec<&'static str> {
        let told = [(UUID, &self.uuid), (CONTENT, &self.content)];
        told.into_iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key).collect()
    }

    /// What is said otherwise about what is there by then, if anything is.
    pub fn difference(&self, then: &Identity) -> Option<String> {
        let pairs = [(UUID, &self.uuid, &then.uuid), (CONTENT, &self.content, &then.content)];
        pairs.into_iter().find_map(|(key, before, after)| match (before, after) {
            (Some(before), Some(after)) if before != after => {
                Some(format!("its {key} is {after}, and was {before}"))
            }
            _ => None,
        })
    }
}

/// An id without what separates its digits, which differs with who tells it. One of zeros alone is none.
fn plain(value: &str) -> Option<String> {
    let digits = value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
    let digits: String = digits.take(LONGEST).collect();
    Some(digits).filter(|digits| digits.contains(|c| c != '0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pairs: &[(&str, &str)], write: bool) -> Identity {
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Identity::of(&pairs, write)
    }

    const ID: &str = "60 00 C2 9e 1f 00 11 22-33 44 55 66 77 88 99 aa";
    const CONTENT_ID: &str = "bd746094172e7bea0b3805d81234abcd";

    #[test]
    fn an_id_is_the_same_however_it_is_written() {
        let same = identity(&[("UUID", "6000c29e1f00112233445566778899AA")], false);
        assert_eq!(identity(&[("uuid", ID)], false).difference(&same), None);
        assert_eq!(same.keys(), ["uuid"]);
    }

    #[test]
    fn another_id_is_told_with_the_one_before() {
        let told = identity(&[("uuid", ID)], false).difference(&identity(&[("uuid", "6000C29f")], false));
        assert_eq!(told.unwrap(), "its uuid is 6000c29f, and was 6000c29e1f00112233445566778899aa");
    }

    #[test]
    fn other_content_matters_to_who_only_reads() {
        let pairs = [("uuid", ID), ("longContentID", CONTENT_ID)];
        let later = [("uuid", ID), ("longContentID", "0b3805d81234abcdbd746094172e7bea")];
        let differ = |write| identity(&pairs, write).difference(&identity(&later, write));
        assert!(differ(false).unwrap().contains("longContentID"));
        assert_eq!(differ(true), None);
        assert_eq!(identity(&pairs, true).keys(), ["uuid"]);
    }

    #[test]
    fn what_is_not_told_is_not_compared() {
        let told = identity(&[("uuid", ID), ("longContentID", CONTENT_ID)], false);
        for nothing in [&[][..], &[("uuid", "")], &[("uuid", "00 00-00")], &[("adapterType", "ide")]] {
            let nothing = identity(nothing, false);
            assert!(nothing.keys().is_empty());
            assert_eq!((told.difference(&nothing), nothing.difference(&told)), (None, None));
        }
    }

    #[test]
    fn an_endless_id_is_cut() {
        let long = identity(&[("uuid", &"a".repeat(1 << 20))], false);
        assert!(long.uuid.is_some_and(|id| id.len() == LONGEST));
    }
}
