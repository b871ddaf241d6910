"""The errors a person meets, by what that person can do about them; and the catalogue of their
codes.

Owns: three families (mend the configuration, do not trust, try later) and one sentence and one hint
per code. Must not: import anything but the standard library, or know how an error is printed.
Refusals of requests are not errors of this kind; they live in the engine (docs/request.md).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

REFERENCE = Path("docs/reference/errors.md")


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One code: its family, a sentence that says what it means, and a hint that says how to mend
    it.
    """

    code: str
    family: str
    sentence: str
    hint: str


# One row a code: a table that is read across.
# ruff: noqa: E501
# fmt: off
_CONFIG = [
    ("address_invalid", "That is not an address to listen on.", "Write HOST:PORT, such as localhost:8443, 0.0.0.0:8443 or [::1]:0; `http://` in front only for this machine's own addresses."),
    ("already_exists", "There is something at that path already.", "Choose another name, or remove what is there."),
    ("audit_unreadable", "That is no audit log that could be read.", "Give a file of `vedette audit export`, or the home folder of a node."),
    ("authority_unknown", "No authority of that name is trusted.", "Run `vedette authority list` to see the names."),
    ("blob_missing", "A file that the snapshot names by digest is not in the blob store.", "Deploy the function again; its component is then stored anew."),
    ("blob_too_large", "The content is larger than a blob may be (64 MiB).", "Make it smaller; for a component, build with `--release` and strip debug information."),
    ("box_unknown", "There is no such box.", "Boxes last as long as the `vedette run` that made them."),
    ("build_failed", "The build command of the project failed.", "Read the compiler's messages above, mend the source and build again."),
    ("bundle_invalid", "That is not a trust bundle that this node can take.", "Give the SPIFFE bundle (JWKS) of that trust domain as its bundle endpoint gives it; docs/identity.md says what is taken."),
    ("ca_key_invalid", "The CA's key cannot be in that token.", "Write pkcs11:token=NAME;object=LABEL?module-path=/…so&pin-source=/FILE; docs/identity.md says more."),
    ("bundle_endpoint_invalid", "The bundle endpoint cannot be served like that.", "Mend what the message names; docs/identity.md says what each profile needs."),
    ("bundle_not_followed", "That trust domain is not followed.", "Run `vedette federation list` to see those that are."),
    ("bundle_url", "That URL is no bundle endpoint's.", "Give an https URL without user and password, such as https://edge-2.example.org:8444/bundle."),
    ("bundle_unknown", "The node keeps no bundle of that trust domain.", "Run `vedette federation list` to see the trust domains."),
    ("certificate_in_use", "A service is shown that certificate.", "Take it out of the service's manifest and apply that first."),
    ("certificate_refused", "The certificate is not of the kind that is needed.", "An authority is the certificates of a CA (CA:TRUE, not expired) without a private key; a client certificate is its chain, leaf first, and the private key of the leaf."),
    ("certificate_unreadable", "That is not a certificate, key or serial number that could be read.", "Give a file with PEM (-----BEGIN …); a pin may be 64 hex digits, a serial number up to 40."),
    ("certificate_unknown", "The node keeps no client certificate of that name.", "Run `vedette certificate list` to see the names."),
    ("command_not_found", "There is no such program, or it may not be seen in its box.", "Give its path, and the folder that it is in with --read; the program sees only what is listed."),
    ("command_not_run", "The program could not be started.", "Check that it may be executed and that --read lists what it needs, such as its interpreter."),
    ("compile_failed", "The component could not be compiled to machine code.", "Check that the file is the output of a current tool chain (a component of WASI 0.2 or 0.3)."),
    ("compile_limit", "Compiling the component used more time or memory than allowed.", "Make the component smaller, or split it into several functions."),
    ("component_missing", "There is no component at that path.", "Build it first with `vedette build`, or give the path of a .wasm file."),
    ("component_too_large", "The component is larger than 64 MiB.", "Build with `--release`, strip debug information, and keep data out of the component."),
    ("core_module", "The file is a core WebAssembly module, not a component.", "Build for the target wasm32-wasip2, or wrap the module with `wasm-tools component new`."),
    ("coreruleset_missing", "This checkout has not packed the Core Rule Set.", "Run `make crs`, then start the node again; an installed package brings it."),
    ("credential_in_use", "An egress policy names that credential.", "Take it out of the policy's manifest and apply that first."),
    ("credential_refused", "That is no credential that could be sent.", "Give a file, or standard input, with one line of printable ASCII: a token or key, without `Bearer`."),
    ("credential_unknown", "The node keeps no credential of that name.", "Run `vedette credential list` to see the names."),
    ("digest_mismatch", "The content does not have the digest it was sent under.", "Send it again; if it happens twice, check the disk it comes from."),
    ("engine_refused", "The engine refused the new state and keeps serving the one before.", "Mend what the message names; nothing has changed."),
    ("export_missing", "The component does not export wasi:http/incoming-handler.", "Export the handler; `vedette new` makes a project that does."),
    ("expectations_invalid", "The table of expectations is not valid.", "Mend the line named; docs/callers.md shows a table."),
    ("file_unreadable", "The file cannot be read.", "Check its path and who may read it."),
    ("file_unwritable", "The file cannot be written.", "Give a file in a folder that is there and that you may write to."),
    ("folder_refused", "A program in a box may not be given that.", "List folders that neither hold the node's home nor lie in it."),
    ("function_unknown", "No function of that name is deployed.", "Run `vedette list` to see what is deployed."),
    ("import_missing", "The component imports an interface that this node does not offer.", "Build against WASI 0.2 or 0.3 without files and sockets; the message names the interface."),
    ("invalid_digest", "That is not a digest.", "A digest is `sha256:` and 64 hexadecimal digits in lower case."),
    ("invalid_duration", "That is not a duration.", "Write a number and a unit, such as 500ms, 30s, 5m, 1h or 7d."),
    ("invalid_host", "That is not a host name.", "Write a host without scheme, port or path, such as api.example.com or *.example.com."),
    ("installation_differs", "The node runs from another installation than this command.", "Upgrade the installation that the message names, and run its own `vedette upgrade`."),
    ("invalid_name", "That is not a valid name.", "Use 1 to 63 lower-case letters, digits and hyphens; start with a letter, end with a letter or digit."),
    ("invalid_path", "That is not a path a route can have.", "Start with / and use no `..`, `//`, `?`, `#` or escapes of ordinary letters."),
    ("invalid_rate", "That is not a rate.", "Write a number and a period, such as 100/s, 6000/m or 10/5s."),
    ("invalid_size", "That is not a size.", "Write a number and a unit, such as 512KB, 64MB or 1GB (powers of 1024)."),
    ("invalid_time", "That is not a time in RFC 3339 form.", "Write it like 2026-11-20T12:00:00Z."),
    ("issuer_reserved", "That issuer belongs to the node itself and cannot be changed.", "Choose another name."),
    ("issuer_unknown", "No issuer of that name is trusted.", "Run `vedette issuer list` to see the names."),
    ("jwks_url", "Keys cannot be fetched from that URL.", "Write https://HOST/PATH without a password; http only for this machine's own addresses."),
    ("key_algorithm", "The key does not fit the algorithm.", "Use one of ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512 EdDSA with a key of that kind."),
    ("key_refused", "The key cannot be used to verify tokens.", "Give a public key: PEM, a certificate, or a JWKS file; RSA with at least 2048 bits."),
    ("key_unreadable", "The file holds no key that could be read.", "Give a PEM public key, a PEM certificate or a JWKS file."),
    ("posture_invalid", "That fact cannot be kept.", "A fact is called like disk-encrypted (a-z, 0-9, `.`, `_`, `-`) and lasts up to 30 days: `vedette posture set --help`."),
    ("posture_unknown", "No such fact is known.", "Run `vedette posture list` to see what is."),
    ("principal_invalid", "That is not a principal.", "Write a subject of this node's tokens, ISSUER#SUBJECT, a SPIFFE ID, or x509:AUTHORITY#SUBJECT, as records have it."),
    ("revocation_refused", "That cannot be revoked.", "A node's own trust domain cannot; at most 10,000 of a kind can."),
    ("revocation_unknown", "That is not revoked.", "Run `vedette revoke --list` to see what is; give it as it is written there."),
    ("grant_invalid", "That cannot be granted.", "Run `vedette grant --help`: a principal that proves itself, a function, model or route, a time of up to 30 days."),
    ("grant_unknown", "There is no grant of that name.", "Run `vedette grant --list` to see the names."),
    ("jti_unknown", "That is not a token, and not the id of one.", "Give the `jti` of the token, or the token itself on stdin with `-`."),
    ("language_unknown", "There is no project template for that language.", "Choose one of the languages that `vedette new --help` lists."),
    ("manifest_invalid", "The manifest is not valid.", "Mend what is named; `vedette schema KIND` and docs/reference/config.md list every field."),
    ("join_token_invalid", "A join token like that is not made.", "Mend what the message names; docs/identity.md says what a join token can be."),
    ("join_token_refused", "The join token joins nobody: it is unknown, was used, or has ended.", "Ask for another one; `vedette records --kind admin` of the node says why."),
    ("join_token_unknown", "The node knows no join token of that id.", "Run `vedette join-token list` to see the ids."),
    ("manifest_missing", "There is no manifest there.", "Give a component file, a folder made by `vedette new`, or files with manifests."),
    ("model_accuracy", "The quantised model lost more accuracy than it may.", "Give --calibrate if there was none, keep the nodes that suffer as they are (--exclude NODE), or allow more with --max-drop."),
    ("model_downgrade", "Versions of a model only go up.", "Leave the version out, or give a higher one; `vedette model show NAME` lists those that are kept."),
    ("model_format", "The file's name says another format than its content.", "Check that it is the file you mean, and name it after what it is."),
    ("golden_invalid", "The golden answers cannot be used.", "Mend what the message names; docs/models.md says what the file holds."),
    ("model_drifted", "What the model is asked or answers is no longer what it was.", "Nothing was changed. Look at `vedette model show NAME`; if the version is right for what comes now, promote it without --max-drift."),
    ("model_drift_unknown", "Whether what the model is asked has changed is not known.", "Nothing was changed. Wait for more requests, or promote without --max-drift."),
    ("model_golden", "The model does not give its golden answers.", "Nothing was changed. Check that it is the right file; if these answers are right now, give it new ones: --golden or --golden-record."),
    ("model_invalid", "The file is no model that this node can run.", "Give a file of ONNX or TensorFlow Lite, whole, with its weights in it; docs/models.md says what is taken."),
    ("model_missing", "There is no model at that path.", "Give a .onnx or .tflite file, or a folder that holds one."),
    ("model_quantize_failed", "The model cannot be quantised.", "Mend what the message names: leave nodes out with --exclude, or export the model anew with opset 17."),
    ("model_reaches_outside", "The model asks for more than its own file: data beside it, or operators of somebody else's code.", "Put weights of other files into it, each listed by its digest: vedette model embed FILE --data NAME=sha256:… --out OUT. Operators have to be standard ones."),
    ("model_signer_absent", "The node trusts no such signer of models.", "Run `vedette model trust list` to see those that it does."),
    ("model_refused", "The model was not asked, or refused the question.", "Mend what the message names; `vedette model show NAME` says what it takes, docs/callers.md who may ask."),
    ("model_serving", "That version is the one that serves.", "Promote another one first, or remove the model whole: without --version."),
    ("model_too_large", "The model is larger than 2 GiB.", "Make it smaller: quantise it, or leave out what serving does not need."),
    ("model_streamless", "The model takes no streams, so it has no alarms.", "Name a detector, or a model whose manifest says `stream`; `vedette model list` shows the format of each, `vedette model show NAME` its stream."),
    ("model_unknown", "The node has no model of that name.", "Run `vedette model list` to see the names."),
    ("model_version_unknown", "The node keeps no such version of that model.", "Run `vedette model show NAME` to see those that are kept."),
    ("native_binary", "The file is a machine-code binary, not a WebAssembly component.", "Build for the target wasm32-wasip2."),
    ("not_a_component", "The file is not a WebAssembly component.", "Give the .wasm file of a component of WASI 0.2 or 0.3."),
    ("nothing_to_roll_back", "There is no earlier snapshot to go back to.", "Run `vedette history` to see what there is."),
    ("plan_invalid", "That file is not a plan.", "Make one with `vedette plan --out FILE`."),
    ("plan_stale", "The node has changed since the plan was made; nothing was applied.", "Run `vedette plan` again, review it, and apply the new plan."),
    ("plan_unconfirmed", "Nobody said yes to the plan; nothing was applied.", "Answer `yes` on a terminal, or say `--yes` in a script."),
    ("policy_invalid", "A Cedar policy does not parse or does not fit the schema.", "Mend the line named; docs/request.md says what a policy can see."),
    ("policy_unknown", "There is no policy of that name.", "Run `vedette policy list` to see the names."),
    ("precompiled_refused", "The file is precompiled code, which is never accepted from outside.", "Deploy the .wasm component; the node compiles it itself."),
    ("record_unknown", "No line of the records has that request id.", "Give the `x-request-id` of the answer, without --kind and --failed; beyond 1 GiB the oldest records give way."),
    ("request_invalid", "The request to the admin API is not valid.", "Mend the field named; docs/reference/openapi.json describes every request."),
    ("rotation_running", "The key before this one is still trusted; one rotation follows another.", "Wait until it is gone: `vedette ca list` says when."),
    ("route_conflict", "Another route already answers for that host and path.", "Choose another path or host (--route, --domains; path, hostnames in a manifest), or remove the other one first."),
    ("route_in_use", "A limit is for a route that would go.", "Take the Limit out of its manifest, with what else is to go, and apply the manifests of the node with --prune; then nothing is left that names the route."),
    ("route_unknown", "There is no route of that name.", "Run `vedette routes` to see the names."),
    ("rule_set_invalid", "That is no Core Rule Set that this node can use.", "Take one that `python -m vedette.policy.coreruleset` packs, or the installed one: `vedette waf rules update`."),
    ("snapshot_invalid", "The desired state is not valid.", "Mend what the message names; the node keeps serving what it has."),
    ("snapshot_unknown", "No snapshot with that digest is in the history.", "Run `vedette history` to see the digests that can be activated."),
    ("socket_path_too_long", "The home folder's path is too long for a Unix socket (107 bytes).", "Choose a shorter folder with --home or VEDETTE_HOME."),
    ("samples_invalid", "The samples are none for this model.", "Give a .npz with an array for each input (numpy.savez), the first dimension of which counts samples; docs/models.md shows one."),
    ("samples_missing", "There are no samples of that.", "`vedette model samples NAME` says what there is; `samples` in a model's manifest has some kept."),
    ("sidecar_invalid", "The sidecar cannot be made or served like that.", "Mend what the message names; docs/mesh.md says what there is."),
    ("sidecar_owned", "That sidecar belongs to a manifest.", "Change its manifest and apply that, then run `vedette sidecar --as NAME` without --for."),
    ("sidecar_unknown", "The node has no sidecar of that name.", "Run `vedette sidecar --list` to see the names; --for PORT makes one, --listen none one that only calls."),
    ("spiffe_id_invalid", "That is not a SPIFFE ID, or not a part of one.", "A trust domain is lower-case letters, digits, dots, hyphens and underscores; a path is /segments of letters, digits, dots, hyphens and underscores, without a slash at the end."),
    ("spiffe_id_reserved", "That SPIFFE ID belongs to the node itself.", "Choose a path that does not begin with /gateway or /fn."),
    ("svid_invalid", "An SVID like that is not issued.", "docs/identity.md says how long SVIDs may live and for how many names and audiences."),
    ("token_scope", "That is not a scope.", "A scope is one word of visible ASCII characters."),
    ("token_subject", "A token cannot have that subject.", "Use 1 to 255 printable characters, such as `alice` or `ci/deploy`."),
    ("token_ttl", "A token cannot live that long.", "Ask for at most 30d; above 24h say so with --ttl."),
    ("traffic_unreadable", "That file or command holds no requests that could be read.", "Give raw HTTP, a HAR archive, one JSON object a line (`url`, `method`, `headers`, `body`), or a command of curl."),
    ("upstream_unknown", "There is no upstream of that name.", "Run `vedette upstreams` to see the names."),
    ("addresses_invalid", "A list of addresses or the database of countries cannot be used.", "Mend the file that is named; docs/admit.md says what a list and a database are."),
    ("admit_invalid", "What the Node says of clients or the challenge cannot be used.", "Mend the field named; docs/admit.md shows each."),
    ("allowed_host_invalid", "A function is allowed a host that is none.", "Write HOST, HOST:PORT, *.HOST or a range of addresses in `allowedHosts`."),
    ("authority_invalid", "The certificates of a client authority cannot be used.", "Give the authority's own certificates, PEM; docs/callers.md says which."),
    ("check_unknown", "There is no check of that number.", "Run `vedette verify --list` to see the checks."),
    ("client_certificate_missing", "The node does not have a client certificate that an upstream is to be shown.", "Add it with `vedette certificate add`, or take `tls.clientCertificate` away."),
    ("egress_invalid", "Outbound calls of functions cannot be set up.", "Check the certificate authorities of this machine (ca-certificates)."),
    ("issuer_doubled", "Two issuers have the same `iss`.", "Remove one of them: `vedette issuer list` shows both."),
    ("key_invalid", "A public key cannot be used to verify.", "Give the issuer's key again; docs/callers.md says which keys are taken."),
    ("limit_invalid", "A limit cannot be used.", "Mend what the message names; docs/manifests.md says what a Limit can be."),
    ("resolver_invalid", "This machine's name servers cannot be used.", "Check /etc/resolv.conf on the node's machine."),
    ("route_invalid", "A route cannot be used.", "Mend what the message names; docs/manifests.md says what a Route can be."),
    ("upstream_invalid", "A service behind the node cannot be used.", "Mend what the message names; docs/manifests.md says what an Upstream can be."),
    ("waf_invalid", "The firewall's rules or exclusions cannot be used.", "Mend the rule or line named; docs/waf.md says what rules can say, and `vedette waf test` tries them."),
    ("workload_invalid", "The workload cannot be kept as it is described.", "Mend what the message names; docs/identity.md says what an entry may say."),
    ("workload_unknown", "The node has no workload of that name.", "Run `vedette workload list` to see the names."),
    ("runtime_invalid", "The library that runs models cannot be used.", "Install another version of it: pip install --upgrade 'vedette[models]'"),
    ("runtime_missing", "The library that runs models is not installed.", "Install it beside vedette: pip install 'vedette[models]'; in a checkout: .venv/bin/pip install onnxruntime"),
    ("tool_missing", "A program that the build needs is not installed.", "Install it as the message says."),
]
_TRUST = [
    ("bundle_rollback", "The trust bundle is older than the one the node has.", "Do not use it; get the present one from its trust domain. If that trust domain was made anew, remove its bundle first."),
    ("blob_tampered", "Stored content does not have the digest it is stored under.", "Do not use it. Check the disk, then deploy the function again."),
    ("model_signature_invalid", "The model's signature does not hold.", "Do not use the file. Get it again from its publisher, with its signature; `vedette model verify` tells what holds."),
    ("model_signer_unknown", "Nobody whom the node trusts with models has signed it.", "If you know the signer, trust the certificate of its authority: vedette model trust add FILE (without a file: the CA of the node). To take it in as unsigned: --unsigned."),
    ("model_unsigned", "The model is not signed, and the node takes only signed ones.", "Give its signature with --signature FILE, or sign it: vedette model sign. The Node's `models.requireSignature` says that it has to be."),
    ("evidence_refused", "The evidence is not what that node signed.", "Do not rely on it: somebody changed it, it is of another node, or `--key` is another node's; `vedette audit key` prints the right one there."),
    ("envelope_invalid", "The signed snapshot is not a DSSE envelope of the expected kind.", "Do not activate it; take the snapshot from the history of this node."),
    ("envelope_signature", "The signature of the snapshot does not verify.", "Do not activate it; somebody changed it or it is from another node."),
    ("key_mismatch", "A certificate does not belong to the private key beside it.", "Check who changed the files in control/; restore both from one backup."),
    ("key_permissions", "A private key can be read by other users.", "Check who had access; then `chmod 600` the file or make a new key."),
    ("plan_altered", "The plan is not the one that was written.", "Do not apply it; somebody or something changed the file. Make the plan again."),
    ("note_foreign", "A head is signed by another key than the one given.", "Give the key of the node that wrote it: `vedette audit key` prints it there."),
    ("note_invalid", "That is not a signed head of an audit log.", "Give it as `vedette audit head` printed it, whole and unchanged."),
    ("note_signature", "The signature of a head does not verify under that key.", "Do not trust it: somebody changed it."),
    ("svid_refused", "A JWT-SVID does not prove what it claims.", "Refuse its bearer; the message says what is wrong with it."),
    ("payload_invalid", "The signed content is not a snapshot in canonical form.", "Do not activate it; it was made by another version or changed."),
]
_UNAVAILABLE = [
    ("address_in_use", "Another program is already listening on that address.", "Stop that program, or choose another address: --listen HOST:PORT, or --metrics HOST:PORT for the metrics."),
    ("bundle_unavailable", "The trust bundle cannot be fetched.", "Check what the message names; the node keeps the bundle that it has and tries again."),
    ("control_away", "The node is running, but its control process does not answer.", "It is restarted by itself: try again in a second; log/control.log says why."),
    ("disk_failed", "The disk refused to write.", "Check the disk and the permissions of the home folder, then try again."),
    ("disk_full", "The disk is full; nothing was changed.", "Free some space, then try again."),
    ("box_refused", "This machine does not let the program be put into its box.", "User namespaces, Landlock and seccomp are needed: as root, or with `sysctl kernel.unprivileged_userns_clone=1` (Debian), `kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu); Linux 5.13 or newer."),
    ("sidecar_not_served", "The engine does not serve the sidecar.", "Mend what the message names; `vedette sidecar --list` says what the node knows of it."),
    ("engine_away", "The engine does not answer.", "It is restarted by itself and loads the active snapshot; log/engine.log says why."),
    ("feed_unavailable", "A list of addresses cannot be fetched.", "Check what the message names; the node keeps the list that it has and tries again."),
    ("inspection_failed", "The process that looks at a model gave no answer.", "Try again. If it stays so, see what memory and time are left: `free -h`, `uptime`."),
    ("model_unavailable", "The model does not answer now.", "Try again in a moment; `vedette model show NAME` says how its process is."),
    ("jwks_unavailable", "The keys of an issuer cannot be fetched.", "Check the URL from this machine (curl); the node keeps the last good keys and tries again."),
    ("key_store_away", "The token with the CA's key does not answer.", "Check that it is plugged in and that the PIN is right; too many wrong ones lock a token."),
    ("model_not_ready", "A model cannot be run.", "Nothing was changed. log/models.log in the home folder says more."),
    ("namespace_refused", "The kernel gives no network namespace.", "Run as root, or allow user namespaces (sysctl user.max_user_namespaces and user.max_net_namespaces)."),
    ("node_not_running", "The node is not running.", "Start it with: vedette up"),
    ("node_running", "A node is already running in that home folder.", "Stop it with `vedette down`, or choose another folder with --home."),
    ("node_start_failed", "The node did not start.", "Read log/supervisor.log, log/control.log and log/engine.log in its home folder."),
    ("embed_ended", "The process that puts the weights of a model into its file ended without an answer.", "Try again; see what memory is left: `free -h`."),
    ("quantize_ended", "The process that quantises a model ended without an answer.", "Try again with fewer samples. If it stays so, see what memory is left: `free -h`."),
    ("question_failed", "The engine's own code gave no answer.", "Try again. If it stays so, see what memory and time are left: `free -h`, `uptime`."),
    ("verification_failed", "The attacks could not be carried out.", "Try again when the machine has less to do; `vedette verify` leaves nothing behind."),
    ("store_busy", "The node's database is locked by another process.", "Wait a moment and try again; only one control process may use one home folder."),
    ("upgrade_failed", "The upgrade did not succeed.", "The engine that was there serves on; log/supervisor.log and log/engine.log say why. Mend the installation and try again."),
    ("upgrade_running", "The node is being upgraded already.", "Wait until that is done, then try again."),
    ("store_newer", "The node's database was written by a newer version.", "Start the version that wrote it, or restore an older copy."),
]
# fmt: on


def _entries() -> dict[str, ErrorEntry]:
    families = {"config": _CONFIG, "trust": _TRUST, "unavailable": _UNAVAILABLE}
    table: dict[str, ErrorEntry] = {}
    for family, rows in families.items():
        for code, sentence, hint in rows:
            if code in table:
                raise AssertionError(f"error code {code} is listed twice")
            table[code] = ErrorEntry(code, family, sentence, hint)
    return table


CATALOGUE: dict[str, ErrorEntry] = _entries()


class VedetteError(Exception):
    """An error with a code, a sentence, a hint and, where it has one, a place in a file.

    Raises `KeyError` when the code is not in `CATALOGUE`: an error nobody documented is a defect.
    """

    family: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        code: str,
        message: str,
        hint: str | None = None,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        entry = CATALOGUE[code]
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = entry.hint if hint is None else hint
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = self.file or ""
        if self.file and self.line:
            place = f"{self.file}:{self.line}"
        return f"{place}: {self.message}" if place else self.message

    def to_dict(self) -> dict[str, Any]:
        """The JSON form that the admin API and the compile process send: code, message, hint, file,
        line.
        """
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
        }


class ConfigError(VedetteError):
    """What was asked for is not valid: mend the configuration, then ask again."""

    family = "config"
    exit_code = 2


class TrustError(VedetteError):
    """Something does not prove what it claims: do not trust it, and do not try again unchanged."""

    family = "trust"
    exit_code = 3


class UnavailableError(VedetteError):
    """The request is fine and cannot be met now: try again later."""

    family = "unavailable"
    exit_code = 4


_FAMILIES: dict[str, type[VedetteError]] = {
    "config": ConfigError,
    "trust": TrustError,
    "unavailable": UnavailableError,
}


def error_from_dict(data: Mapping[str, Any]) -> VedetteError:
    """The error whose `to_dict` gave `data`, in the family its code belongs to. Raises `KeyError`
    for an unknown code.
    """
    code = str(data["code"])
    family = _FAMILIES[CATALOGUE[code].family]
    return family(code, str(data["message"]), data.get("hint"), data.get("file"), data.get("line"))


def code_and_message(refusal: ValueError) -> tuple[str, str] | None:
    """What the engine's own code says why: the JSON `{"code", "message"}` of its `ValueError`; None
    for another error. The code need not be in `CATALOGUE`.
    """
    try:
        body = json.loads(str(refusal))
        return str(body["code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        return None


_FAMILY_TITLES = {
    "config": "Mend the configuration (`ConfigError`, exit code 2)",
    "trust": "Do not trust (`TrustError`, exit code 3)",
    "unavailable": "Try later (`UnavailableError`, exit code 4)",
}


def render_reference() -> str:
    """The text of docs/reference/errors.md."""
    lines = ["# Errors", "", "Generated by `python -m vedette.errors --write`; do not edit.", ""]
    for family, title in _FAMILY_TITLES.items():
        lines += [f"## {title}", "", "| code | what it says | what to do |", "|---|---|---|"]
        lines += [
            f"| `{entry.code}` | {entry.sentence} | {entry.hint} |"
            for entry in sorted(CATALOGUE.values(), key=lambda entry: entry.code)
            if entry.family == family
        ]
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the reference, or checks that it is current. Exit code 1 means it drifted."""
    parser = argparse.ArgumentParser(prog="python -m vedette.errors")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true")
    action.add_argument("--write", action="store_true")
    parser.add_argument("--root", type=Path, default=Path())
    options = parser.parse_args(arguments)
    path = options.root / REFERENCE
    if options.write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render_reference(), encoding="utf-8")
        return 0
    if not path.exists() or path.read_text(encoding="utf-8") != render_reference():
        print(f"{REFERENCE} drifted: run `python -m vedette.errors --write`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
