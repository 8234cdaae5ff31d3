//! What a server says about itself.

/// What a server says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// `VMware vCenter Server 8.0.1 build-21560480`.
    pub full_name: String,
    /// `VMware vCenter Server`.
    pub name: String,
    /// `8.0.1`.
    pub version: String,
    /// `21560480`.
    pub build: String,
    /// `VirtualCenter` or `HostAgent`.
    pub api_type: String,
    /// `8.0.1.0`.
    pub api_version: String,
    /// Tells one vCenter from another; hosts have none.
    pub instance_uuid: Option<String>,
}

impl About {
    /// False for a host that is talked to directly.
    pub fn is_vcenter(&self) -> bool {
        self.api_type == "VirtualCenter"
    }
}
