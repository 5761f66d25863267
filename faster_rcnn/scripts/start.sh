# Run or print COMMAND with the variables in EXPORTED. common.sh sources this file.
# shellcheck shell=bash

print_command() {
  local quoted line
  printf -v quoted '%q ' "${COMMAND[@]}"
  line=${quoted% }
  [[ ${COMMAND[0]} != *=* ]] || line="''$line"    # unquoted, a shell would take it for a variable assignment
  if ((${#EXPORTED[@]} > 0)); then
    printf -v quoted '%q ' "${EXPORTED[@]}"
    line=$quoted$line
  fi
  printf '%s\n' "$line"
}

# Replace this shell by COMMAND. env would take a program with = in its path for a variable assignment.
replace_shell() {
  ((${#EXPORTED[@]} == 0)) || export -- "${EXPORTED[@]}"
  exec -- "${COMMAND[@]}"
}

# Replace this shell by COMMAND, so that the program receives its signals and sets its exit status.
start() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    exit 0
  fi
  replace_shell
}

# Run COMMAND and wait for it, forwarding signals. Returns its status.
start_and_wait() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    return
  fi
  local child status=0
  set -m    # in a process group of its own; otherwise bash makes it ignore Ctrl-C
  replace_shell &
  child=$!
  set +m
  # shellcheck disable=SC2064
  trap "kill -INT $child 2>/dev/null || :" INT
  # shellcheck disable=SC2064
  trap "kill -TERM $child 2>/dev/null || :" TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do    # a signal interrupted wait, not the program
    status=0
    wait "$child" || status=$?
  done
  trap - INT TERM HUP
  return "$status"
}
