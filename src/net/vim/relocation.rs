//! Keeping a machine where it is while its disks are read.

use crate::error::Context;
use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::vim::Moref;
use crate::net::vim::Session;
use crate::net::vim::call::Call;
use crate::net::vim::fault::Refused;

const METHOD: &str = "RelocateVM_Task";

/// Most characters of an identity.
const LONGEST_IDENTITY: usize = 50;

/// What a vCenter shows as the reason.
const REASON: &str = "The disks of the virtual machine are being accessed";

impl Session {
    /// Keeps the machine where it is. `OperationDisabled` where somebody with another identity did that before,
    /// `NotSupported` on a host without a vCenter.
    pub fn disable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        let call = Call::internal("DisableMethods", self.authorization(identity)?)
            .moref("entity", machine)
            .inside("method", |method| method.text("method", METHOD).text("reasonId", REASON))
            .text("sourceId", identity);
        let method = call.method;
        let done = match self.ask(call, None, &mut |_| Ok(())) {
            Err(Refused::Fault(fault)) if fault.name.starts_with("MethodAlreadyDisabled") => {
                match fault.fact("sourceId") {
                    Some(source) if source == identity => Ok(()),
                    _ => Err(fault.error(method, &self.wire.hidden).with_kind(ErrorKind::OperationDisabled)),
                }
            }
            done => done.map_err(|refused| refused.error(method, &self.wire.hidden)),
        };
        done.context(|| format!("disabling {METHOD} of {machine} for {identity:?}"))
    }

    /// Undoes [`Session::disable_relocation`] with the same identity.
    pub fn enable_relocation(&self, machine: &Moref, identity: &str) -> Result<()> {
        let call = Call::internal("EnableMethods", self.authorization(identity)?)
            .moref("entity", machine)
            .text("method", METHOD)
            .text("sourceId", identity);
        self.get(call, &mut |_| Ok(())).context(|| format!("enabling {METHOD} of {machine} for {identity:?}"))
    }

    /// The object that allows and forbids methods.
    fn authorization(&self, identity: &str) -> Result<&Moref> {
        if identity.is_empty() || identity.chars().count() > LONGEST_IDENTITY {
            let what = format!("an identity has 1 to {LONGEST_IDENTITY} characters");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if !self.about().is_vcenter() {
            let what = "HostAgent is not a vCenter, cannot disable svmotion.";
            return Err(Error::new(ErrorKind::NotSupported, what));
        }
        let manager = self.content.authorization_manager.as_ref();
        manager.ok_or_else(|| Error::new(ErrorKind::NotSupported, "the server has no authorization manager"))
    }
}
