# Same as faster_rcnn/scripts/start.sh
# Starts or prints COMMAND, with the variables EXPORTED; common.sh sources it.
# shellcheck shell=bash

print_command() {
  local quoted line
  printf -v quoted '%q ' "${COMMAND[@]}"
  line=${quoted% }
  [[ ${COMMAND[0]} != *=* ]] || line="''$line"    # without quotes a shell takes it for a variable
  if ((${#EXPORTED[@]} > 0)); then
    printf -v quoted '%q ' "${EXPORTED[@]}"
    line=$quoted$line
  fi
  printf '%s\n' "$line"
}

# COMMAND in place of this shell. Not by env, which takes a program with a = in its path for a variable.
replace_shell() {
  ((${#EXPORTED[@]} == 0)) || export -- "${EXPORTED[@]}"
  exec -- "${COMMAND[@]}"
}

# Run COMMAND in place of this shell, so that its status and its signals are the program's.
start() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    exit 0
  fi
  replace_shell
}

# Run COMMAND with this shell waiting: signals go on to the program. Returns its status.
start_and_wait() {
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    print_command
    return
  fi
  local child status=0
  set -m    # a process group of its own: without, bash has it ignore Ctrl-C
  replace_shell &
  child=$!
  set +m
  # shellcheck disable=SC2064
  trap "kill -INT $child 2>/dev/null || :" INT
  # shellcheck disable=SC2064
  trap "kill -TERM $child 2>/dev/null || :" TERM HUP
  wait "$child" || status=$?
  while kill -0 "$child" 2>/dev/null; do    # a signal ended the waiting, not the program
    status=0
    wait "$child" || status=$?
  done
  trap - INT TERM HUP
  return "$status"
}
