//! Which version of the interface is spoken.

use roxmltree::Document;

use crate::net::vim::xml;

/// What is spoken with a server that lists nothing. Servers answer in versions older than theirs, too.
pub const WITHOUT_LIST: &str = "6.5";

/// The newest version that is asked for. Newer servers answer it.
const NEWEST: &[u64] = &[8, 0, 3, 0];

/// The highest version that both sides know.
pub fn choose(listed: &Document<'_>) -> Option<String> {
    let vim = listed.descendants().find(|n| {
        is(*n, "namespace") && n.children().any(|name| is(name, "name") && xml::text(name).trim() == xml::VIM)
    })?;
    vim.descendants()
        .filter(|n| is(*n, "version"))
        .filter_map(|n| {
            let text = xml::text(n).trim().to_owned();
            Some((numbers(&text)?, text))
        })
        .filter(|(numbers, _)| numbers.as_slice() <= NEWEST)
        .max()
        .map(|(_, text)| text)
}

/// The list has no namespace of its own.
fn is(node: roxmltree::Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

/// `8.0.1.0` as numbers; names of versions that are none are for the makers of servers.
fn numbers(version: &str) -> Option<Vec<u64>> {
    let is_plain = version.len() <= 32 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    version.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::Hidden;

    fn chosen(versions: &[&str]) -> Option<String> {
        let (first, prior) = versions.split_first().unwrap();
        let prior: String = prior.iter().map(|v| format!("<version>{v}</version>")).collect();
        let text = format!(
            "<namespaces version=\"1.0\"><namespace><name>urn:other</name><version>5.0</version></namespace>\
             <namespace><name>urn:vim25</name><version>{first}</version><priorVersions>{prior}</priorVersions>\
             </namespace></namespaces>"
        );
        choose(&xml::parse(text.as_bytes(), &Hidden::default()).unwrap())
    }

    #[test]
    fn the_highest_version_that_both_know_is_chosen() {
        assert_eq!(chosen(&["8.0.1.0", "8.0.0.1", "7.0.3.2"]).unwrap(), "8.0.1.0");
        assert_eq!(chosen(&["9.0.0.0", "8.0.2.0", "8.0.3.0", "8.0.10.0"]).unwrap(), "8.0.3.0");
        assert_eq!(chosen(&["6.5", "6.0", "5.5"]).unwrap(), "6.5");
        assert_eq!(chosen(&["6.9.1", "6.10.0"]).unwrap(), "6.10.0");
        assert_eq!(chosen(&["dev", "7.0\" x", "99999999999999999999.1", "6.0"]).unwrap(), "6.0");
        assert_eq!(chosen(&["9.0.0.0"]), None);
    }

    #[test]
    fn a_document_without_our_interface_chooses_nothing() {
        for text in [
            "<namespaces/>",
            "<namespaces><namespace><name>urn:x</name><version>8.0</version></namespace></namespaces>",
        ] {
            assert_eq!(choose(&xml::parse(text.as_bytes(), &Hidden::default()).unwrap()), None);
        }
    }
}
