"""The rule files of a run: what the Core Rule Set's own test bench sets, for both engines alike.

Owns the values of the run (notes in the Core Rule Set's `tests/docker-compose.yml`). Must not know engines.
"""

from __future__ import annotations

from pathlib import Path

from vedette.policy import coreruleset as crs

SCORES_RULE = 9999990
SCORES_MARK = "scores "

BODY_PROCESSORS = """
SecRule REQUEST_HEADERS:Content-Type "^(?:application(?:/soap\\+|/)|text/)xml" \\
  "id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "^application/json" \\
  "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQUEST_HEADERS:Content-Type "^application/[a-z0-9.-]+[+]json" \\
  "id:200006,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQBODY_ERROR "!@eq 0" "id:200002,phase:2,t:none,log,deny,status:400,\\
  msg:'Failed to parse request body.',logdata:'%{reqbody_error_msg}',severity:2"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" "id:200003,phase:2,t:none,log,deny,status:400,\\
  msg:'Multipart request body failed strict validation.'"
"""

LIMITS = (
    "tx.arg_name_length=100",
    "tx.arg_length=400",
    "tx.total_arg_length=64000",
    "tx.max_num_args=255",
    "tx.max_file_size=64100",
    "tx.combined_file_sizes=65535",
    "tx.crs_validate_utf8_encoding=1",
)

# Both engines say their scores in the log, so that nothing has to be read out of either.
SCORES = (
    f'SecAction "id:{SCORES_RULE},phase:5,pass,t:none,log,'
    f"msg:'{SCORES_MARK}inbound=%{{tx.blocking_inbound_anomaly_score}} "
    "outbound=%{tx.blocking_outbound_anomaly_score}'\"\n"
)


def write(folder: Path, *, engine: str, paranoia: int, extra: str = "") -> list[Path]:
    """Write the run's own files into `folder` and say what to load, in order.

    `engine` is `On` or `DetectionOnly`; `extra` are directives before the rules.
    """
    before, after = folder / f"before-{engine}-{paranoia}.conf", folder / "after.conf"
    levels = (f"tx.blocking_paranoia_level={paranoia}", f"tx.detection_paranoia_level={paranoia}")
    variables = ",".join(f"setvar:{each}" for each in (*levels, "tx.reporting_level=4", *LIMITS))
    before.write_text(
        f"SecRuleEngine {engine}\n"
        "SecRequestBodyAccess On\nSecResponseBodyAccess On\n"
        "SecResponseBodyMimeType text/plain text/html text/xml application/json\n"
        "SecRequestBodyLimit 13107200\nSecRequestBodyNoFilesLimit 13107200\nSecResponseBodyLimit 1048576\n"
        f"{BODY_PROCESSORS}"
        f'SecAction "id:900005,phase:1,nolog,pass,{variables}"\n{extra}'
    )
    after.write_text(SCORES)
    return [before, crs.SETUP, *sorted(crs.RULES.glob("*.conf")), after]
