//! The objects that a server has one of. Their ids differ between vCenter and ESXi.

use crate::error::Result;
use crate::net::vim::About;
use crate::net::vim::Moref;
use crate::net::vim::xml;
use crate::net::vim::xml::Node;

/// What `RetrieveServiceContent` tells.
#[derive(Debug)]
pub struct Content {
    pub about: About,
    pub property_collector: Moref,
    pub session_manager: Moref,
    pub search_index: Option<Moref>,
    pub authorization_manager: Option<Moref>,
    pub storage_objects: Option<Moref>,
}

impl Content {
    /// Reads it.
    pub fn read(node: Node<'_>) -> Result<Self> {
        let about = xml::need(node, "about")?;
        let text = |name| xml::optional(about, name).map(Option::unwrap_or_default);
        Ok(Self {
            about: About {
                full_name: text("fullName")?,
                name: text("name")?,
                version: text("version")?,
                build: text("build")?,
                api_type: text("apiType")?,
                api_version: text("apiVersion")?,
                instance_uuid: xml::optional(about, "instanceUuid")?,
            },
            property_collector: xml::moref(xml::need(node, "propertyCollector")?)?,
            session_manager: xml::moref(xml::need(node, "sessionManager")?)?,
            search_index: xml::optional_moref(node, "searchIndex")?,
            authorization_manager: xml::optional_moref(node, "authorizationManager")?,
            storage_objects: xml::optional_moref(node, "vStorageObjectManager")?,
        })
    }
}
