//! What differs between the releases that the simulator can be, each with its evidence: O observed on a real server, D vendor
//! documentation, T public type definitions, I inferred, U unknown. What no source tells is the same for all.

/// A release of vSphere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Release {
    /// 6.5.
    V65,
    /// 6.7.
    V67,
    /// 7.0.
    V70,
    /// 8.0.
    #[default]
    V80,
    /// 9.0.
    V90,
}

/// How a release shows itself over SOAP.
#[derive(Clone, Copy, Debug)]
pub struct Personality {
    /// Its name on the command line, and in texts.
    pub name: &'static str,
    /// `about.version`.
    pub version: &'static str,
    /// `about.apiVersion`, the highest version of the interface; the older ones follow from [`VERSIONS`] (T).
    pub api: &'static str,
    /// What `nfcServiceVersions.xml` says. O for 8.0 alone (`vsphere.md` 2); the others have no such file here.
    pub nfc_service: Option<&'static str>,
    /// The answer to `NfcGetServerNfcLibVersion`: O for 6.5 to 8.0 (`nfc.md` 14); U for 9.0, where the call is refused.
    pub nfc_library: Option<i32>,
    /// Tickets carry the certificate instead of its thumbprint for callers of version 9.0 or later: D, 9.0 (`nfc.md` 2).
    pub ticket_certificate: bool,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Release; 5] = [Release::V65, Release::V67, Release::V70, Release::V80, Release::V90];

    /// The release of this name.
    pub fn named(name: &str) -> Option<Release> {
        Release::ALL.into_iter().find(|release| release.personality().name == name)
    }

    /// What is known of it.
    pub fn personality(self) -> &'static Personality {
        match self {
            Release::V65 => &V65,
            Release::V67 => &V67,
            Release::V70 => &V70,
            Release::V80 => &V80,
            Release::V90 => &V90,
        }
    }
}

impl Personality {
    /// The versions of the interface that it answers, newest first.
    pub fn versions(&self) -> &'static [&'static str] {
        let newest = VERSIONS.iter().position(|version| *version == self.api).unwrap_or(0);
        VERSIONS.get(newest..).unwrap_or_default()
    }
}

const V65: Personality = Personality {
    name: "6.5",
    version: "6.5.0",
    api: "6.5",
    nfc_service: None,
    nfc_library: Some(0),
    ticket_certificate: false,
};

const V67: Personality = Personality {
    name: "6.7",
    version: "6.7.0",
    api: "6.7.3",
    nfc_service: None,
    nfc_library: Some(2),
    ticket_certificate: false,
};

const V70: Personality = Personality {
    name: "7.0",
    version: "7.0.3",
    api: "7.0.3.0",
    nfc_service: None,
    nfc_library: Some(7),
    ticket_certificate: false,
};

const V80: Personality = Personality {
    name: "8.0",
    version: "8.0.1",
    api: "8.0.1.0", // O, `vsphere.md` 2
    nfc_service: Some("7.0.3.2"),
    nfc_library: Some(11),
    ticket_certificate: false,
};

const V90: Personality = Personality {
    name: "9.0",
    version: "9.0.0",
    api: "9.0.0.0",
    nfc_service: None,
    nfc_library: None,
    ticket_certificate: true,
};

/// Versions of the interface, newest first (T: the version names of pyVmomi).
pub const VERSIONS: &[&str] = &[
    "9.0.0.0", "8.0.3.0", "8.0.2.0", "8.0.1.0", "8.0.0.2", "8.0.0.1", "8.0.0.0", "7.0.3.2", "7.0.3.1",
    "7.0.3.0", "7.0.2.1", "7.0.2.0", "7.0.1.1", "7.0.1.0", "7.0.0.2", "7.0.0.0", "6.9.1", "6.8.7", "6.7.3",
    "6.7.2", "6.7.1", "6.7", "6.5", "6.0", "5.5", "5.1", "5.0", "4.1", "4.0", "2.5u2", "2.5",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_answers_its_own_version_and_older_ones_only() {
        for release in Release::ALL {
            let personality = release.personality();
            let versions = personality.versions();
            assert_eq!(versions.first(), Some(&personality.api));
            assert!(versions.contains(&"6.5"));
            assert_eq!(Release::named(personality.name), Some(release));
        }
        assert!(!Release::V65.personality().versions().contains(&"6.7"));
        assert_eq!(Release::named("5.5"), None);
    }
}
